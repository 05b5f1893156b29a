"""The architecture: who may import what, the faces of packages, sizes, docstrings and words."""

import ast
import importlib
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "maml_cli"

# Packages and top-level modules by layer, top to bottom: each imports only from layers below its own.
LAYERS = [
    {"__init__"},
    {"__main__", "dev"},
    {"cli"},
    {"report"},
    {"api"},
    {"reporting"},
    {"checks"},
    {"sweeps"},
    {"training"},
    {"evaluation"},
    {"engines"},
    {"adaptation"},
    {"experiment"},
    {"runs"},
    {"config", "tasks"},
    {"formulas", "tables"},
    {"memory", "runtime"},
    {"core"},
    {"documents", "reading", "interrupts"},
    {"extras", "messages"},
    {"errors", "lazy"},
]
# Third-party modules, and the only packages or modules that may import each.
THIRD_PARTY = {
    "torch": {
        "core",
        "tasks",
        "runtime",
        "experiment",
        "runs",
        "engines",
        "training",
        "evaluation",
        "checks",
        "dev",
        "adaptation",
        "api",
        "formulas",
        "tables",
        "report.learner_document",
        "reporting.tensorboard",
    },
    "torch.utils": {"reporting.tensorboard"},
    "torch.func": {"checks", "dev"},
    "PIL": {"reporting.animation"},
    "torch.fx": {"engines.compiled"},
    "rich": {"reporting.tables", "reporting.result_tables"},
    "jinja2": {"report.page"},
    "markupsafe": {"report.page", "report.inline_svg"},
    "matplotlib": {"reporting.matplotlib_import"},
    "typer": {"cli", "dev"},
    "yaml": {"config", "dev.soak.fuzz"},
    "pydantic": {"config", "documents", "runs.contents", "dev.soak.configs"},
    "pydantic_core": {"config", "runs.contents"},
    "tqdm": {"training.progress"},
    "numpy": {"adaptation.arrays", "evaluation.exported_params"},
    "safetensors": {"evaluation.exported_params"},
    "scipy": {"evaluation.statistics"},
    "optuna": {"sweeps"},
    "hypothesis": {"dev.soak.fuzz"},
    "tests": {"dev.soak.sanitizers"},
    "higher": {"dev.other_libraries"},
    "torchopt": {"dev.other_libraries", "dev.batched_libraries"},
    "jax": {"dev.jax_library"},
    "optax": {"dev.jax_library"},
}
# Modules that other packages import as such, because their names read best with the name of the module.
NAMESPACES = {
    "adaptation": {"chunks"},
    "config": {"presets"},
    "core": {"clipping", "curvature", "extrapolation", "inner_loop", "meta_gradients", "update_rules"},
    "documents": {"adaptations", "evaluations", "machine", "trainings"},
    "runs": {"directory", "metrics", "timing"},
}
MODULES = sorted(".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in PACKAGE.rglob("*.py"))


PACKAGES = sorted(path.parent.name for path in PACKAGE.glob("*/__init__.py"))


Scope = ast.FunctionDef | ast.ClassDef | ast.Module
SCOPES = (
    ast.FunctionDef,
    ast.ClassDef,
    ast.Module,
    ast.Lambda,
    ast.ListComp,
    ast.SetComp,
    ast.DictComp,
    ast.GeneratorExp,
)


# Vague words that stand for a term of the field.
VAGUE = {"found", "held", "way", "place", "going", "lost", "kept", "beside", "whole", "part", "told", "rest"}
# A docstring begins with a noun of the field, not with a pronoun.
PRONOUNS = ("What ", "That ", "Those ", "It ", "They ", "One that ", "The same ")


def _path(module: str) -> Path:
    return PACKAGE / f"{module.replace('.', '/')}.py"


def _tree(module: str) -> ast.Module:
    return ast.parse(_path(module).read_text())


def _functions(module: str) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(_tree(module)) if isinstance(node, ast.FunctionDef))


def _documented(tree: ast.Module) -> Iterator[Scope]:
    return (node for node in ast.walk(tree) if isinstance(node, ast.FunctionDef | ast.ClassDef | ast.Module))


def _bindings(scope: ast.AST) -> Iterator[tuple[str, int]]:
    """Names that `scope` itself defines, with their lines: arguments, variables, functions and attributes."""
    for node in _own_nodes(scope):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.FunctionDef | ast.ClassDef | ast.ExceptHandler) and node.name:
            yield node.name, node.lineno


def _own_nodes(scope: ast.AST) -> Iterator[ast.AST]:
    """The nodes below `scope`, down to the scopes inside it."""
    for child in ast.iter_child_nodes(scope):
        yield child
        if not isinstance(child, SCOPES):
            yield from _own_nodes(child)


def _vague_names(module: str) -> list[str]:
    """Names of the list whose scope spans more than two lines, each as `line: name`."""
    offenders = set()
    for scope in (node for node in ast.walk(_tree(module)) if isinstance(node, SCOPES)):
        uses = [(node.id, node.lineno) for node in ast.walk(scope) if isinstance(node, ast.Name)]
        for name, line in _bindings(scope):
            exported = isinstance(scope, ast.Module | ast.ClassDef)
            last = max([at for used, at in uses if used == name], default=line)
            if name.lstrip("_") in VAGUE and (exported or last - line > 1):
                offenders.add(f"{line}: {name}")
    return sorted(offenders, key=lambda offender: int(offender.partition(":")[0]))


def _imports(module: str) -> set[str]:
    """Absolute names of everything that a module imports, at its top or inside a function."""
    names = set()
    for node in ast.walk(_tree(module)):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            assert node.level == 0, f"{module}: a relative import"
            names |= {node.module} | {f"{node.module}.{alias.name}" for alias in node.names}
    return names


def _layer(package: str) -> int:
    return next(depth for depth, packages in enumerate(LAYERS) if package in packages)


@pytest.mark.parametrize("module", MODULES)
def test_imports_run_downwards_only(module: str) -> None:
    package = module.split(".")[0]
    others = {name.split(".")[1] for name in _imports(module) if name.startswith("maml_cli.")}
    for other in others - {package, "__version__"}:
        assert _layer(package) < _layer(other), f"{module} imports {other}"


@pytest.mark.parametrize("module", MODULES)
def test_third_party_packages_are_imported_only_where_they_belong(module: str) -> None:
    for name in _imports(module):
        root = name.split(".")[0]
        if root == "maml_cli" or root in sys.stdlib_module_names:
            continue
        key = ".".join(name.split(".")[:2]) if ".".join(name.split(".")[:2]) in THIRD_PARTY else root
        owners = THIRD_PARTY[key]
        assert module in owners or module.split(".")[0] in owners, f"{module} imports {name}"


def test_nothing_imports_the_developers_tools() -> None:
    """They are not in the wheel."""
    users = {module for module in MODULES if any(name.startswith("maml_cli.dev") for name in _imports(module))}
    assert {module.split(".")[0] for module in users} == {"dev"}


def test_one_module_knows_the_directory_of_the_published_results() -> None:
    assert [module for module in MODULES if '"outputs/published' in _path(module).read_text()] == ["runs.published"]


@pytest.mark.parametrize("package", PACKAGES)
def test_a_face_lists_exactly_the_names_that_it_imports(package: str) -> None:
    face = importlib.import_module(f"maml_cli.{package}")
    listed: list[str] = getattr(face, "__all__", [])
    imported = {
        alias.name
        for node in ast.walk(_tree(f"{package}.__init__"))
        if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"maml_cli.{package}.")
        for alias in node.names
    }
    assert set(listed) == imported and len(listed) == len(imported)
    assert all(hasattr(face, name) for name in listed)


@pytest.mark.parametrize("module", MODULES)
def test_public_names_have_docstrings(module: str) -> None:
    for scope in _documented(_tree(module)):
        for node in scope.body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
                if isinstance(scope, ast.FunctionDef):
                    continue  # nested functions are explained by the function around them
                assert ast.get_docstring(node), f"{module}.{node.name}"


@pytest.mark.parametrize("module", MODULES)
def test_names_are_terms_and_not_vague_words(module: str) -> None:
    assert not _vague_names(module), module


@pytest.mark.parametrize("module", MODULES)
def test_docstrings_do_not_begin_with_a_pronoun(module: str) -> None:
    for scope in _documented(_tree(module)):
        name = "" if isinstance(scope, ast.Module) else scope.name
        assert not (ast.get_docstring(scope) or "").startswith(PRONOUNS), f"{module}.{name}"


@pytest.mark.parametrize("module", MODULES)
def test_modules_have_at_most_250_lines(module: str) -> None:
    assert len(_path(module).read_text().splitlines()) <= 250


@pytest.mark.parametrize("module", [name for name in MODULES if name.split(".")[0] not in ("dev", "cli", "__main__")])
def test_packages_are_imported_by_their_faces(module: str) -> None:
    """From outside a package only names of its `__all__`, and the modules that are read as namespaces."""
    package = module.split(".")[0]
    for node in ast.walk(_tree(module)):
        if not isinstance(node, ast.Import | ast.ImportFrom):
            continue
        source = (node.module or "") if isinstance(node, ast.ImportFrom) else node.names[0].name
        root, _, other = source.partition(".")
        if root == "maml_cli" and other and other.split(".")[0] in {*PACKAGES} - {package}:
            face = importlib.import_module(f"maml_cli.{other.split('.')[0]}")
            assert other in PACKAGES, f"{module} imports {source}"
            public = {*face.__all__} | NAMESPACES.get(other, set())
            assert {alias.name for alias in node.names} <= public, f"{module} imports modules of {source}"


@pytest.mark.parametrize("module", MODULES)
def test_functions_have_at_most_fifty_lines(module: str) -> None:
    """Without signature and docstring."""
    for function in _functions(module):
        body = function.body[1:] if ast.get_docstring(function) else function.body
        if body:
            assert (body[-1].end_lineno or 0) - body[0].lineno < 50, f"{module}.{function.name}"


def test_there_is_one_create_graph() -> None:
    uses = [
        module
        for module in MODULES
        for node in ast.walk(_tree(module))
        if isinstance(node, ast.Call) and any(keyword.arg == "create_graph" for keyword in node.keywords)
    ]
    assert sorted(uses) == ["core.inner_loop", "dev.batched_libraries", "dev.other_libraries"]


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["--version"],
        ["presets"],
        ["config", "show", "quickstart"],
        ["train", "--help"],
        ["sweep", "--help"],
        ["schema"],
        ["schema", "eval"],
    ],
)
def test_light_commands_import_neither_torch_nor_matplotlib(arguments: list[str]) -> None:
    code = (
        "import sys; from maml_cli.cli.app import main\n"
        "heavy = {'torch', 'matplotlib', 'numpy', 'scipy'}\n"
        f"try: main({arguments!r})\n"
        "except SystemExit: print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"
