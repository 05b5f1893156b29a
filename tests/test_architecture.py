"""The structure holds: imports run one way down, and the core knows nothing of configs, files or terminals."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "maml_cli"
# From the top down, one layer a line.
ROOMS = [
    *("__main__", "readme", "bench", "bench_text", "contender", "peers"),
    *("results", "results_plan", "results_text", "cli", "config_cli", "options", "failures"),
    *(
        "draw",
        "plots",
        "report",
        "launch",
        "describe",
        "progress",
        "signals",
        "compare",
        "assess",
        "check",
        "independent",
        "machine",
        "quick",
        "reference",
    ),
    *("train", "engines", "native", "compiled", "kernel", "evaluate", "rundir", "checkpoint", "files"),
    *("experiment", "devices", "loading", "presets", "complaints", "yamlfile", "config", "nonsense"),
    *(
        "examples",
        "adjoint",
        "baselines",
        "outer",
        "updates",
        "algorithms",
        "meta_gradients",
        "rules",
        "inner",
        "losses",
        "meta",
        "model",
        "tasks",
    ),
    *("errors", "__init__"),
]
CORE = set(ROOMS[ROOMS.index("examples") :])


def _imports(module: str) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse((PACKAGE / f"{module}.py").read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return found


def _own(module: str) -> set[str]:
    rooms = {name.split(".")[1] for name in _imports(module) if name.startswith("maml_cli.")}
    return rooms & set(ROOMS)


def test_every_module_has_its_place() -> None:
    assert {path.stem for path in PACKAGE.glob("*.py")} == set(ROOMS)


@pytest.mark.parametrize("module", ROOMS)
def test_imports_run_downwards_only(module: str) -> None:
    assert all(ROOMS.index(other) > ROOMS.index(module) for other in _own(module))


@pytest.mark.parametrize("module", sorted(CORE))
def test_the_core_is_pure(module: str) -> None:
    assert _own(module) <= CORE
    outside = {name.split(".")[0] for name in _imports(module)}
    assert not outside & {"os", "pathlib", "yaml", "pydantic", "typer", "rich", "tqdm", "matplotlib", "json", "time"}


def test_there_is_one_create_graph() -> None:
    uses = [
        path.stem
        for path in PACKAGE.glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and any(keyword.arg == "create_graph" for keyword in node.keywords)
    ]
    assert sorted(uses) == ["inner", "peers"]  # peers: what others write


@pytest.mark.parametrize(
    "arguments", [["--help"], ["--version"], ["presets"], ["config", "show", "quickstart"], ["train", "--help"]]
)
def test_light_commands_import_neither_torch_nor_matplotlib(arguments: list[str]) -> None:
    code = (
        "import sys; from maml_cli.cli import main\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: print(sorted({'torch', 'matplotlib', 'numpy'} & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
