"""The pages are true: their commands run, their generated sections are current, their keys, codes and links exist."""

import re
import shlex
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from matplotlib.image import imread

from maml_cli import errors
from maml_cli.cli.app import app
from maml_cli.config import presets
from maml_cli.dev.generated_docs import draw_generated_figures, fill_sections, generated_pages
from maml_cli.dev.package_map import first_sentence
from maml_cli.runs.published import PUBLISHED
from tests.conftest import TINY_RUN, Cli

ROOT = Path(__file__).parent.parent
README, INSIDE = ROOT / "README.md", ROOT / "maml_cli" / "README.md"
SHARED = ROOT / "maml_cli" / "training" / "README.md"
OWN_CURVES, FAMILIES = (ROOT / "maml_cli" / name / "README.md" for name in ("tasks", "formulas"))
SWEEPS = ROOT / "maml_cli" / "sweeps" / "README.md"
PUBLISHED_PAGES = [ROOT / "configs" / "README.md", ROOT / "outputs" / "published" / "RESULTS.md"]
TUTORIAL = ROOT / "configs" / "TUTORIAL.md"  # tests/test_tutorial.py runs its commands
PAGES = [README, INSIDE, SHARED, OWN_CURVES, FAMILIES, SWEEPS, *PUBLISHED_PAGES]
SHORT = {
    "train": [*TINY_RUN, "-s", "run.checkpoint_every=4", "-s", "run.device=cpu"],
    "sweep": [*TINY_RUN, "-s", "run.engine=eager"],
    "eval": ["--tasks", "10"],
    "plot": ["--tasks", "10"],
    "compare": ["--tasks", "10"],
    "diff": ["--tasks", "10"],
    "report": ["--tasks", "10"],
}


def _commands(page: Path) -> Iterator[str]:
    """Every line after a $ in a console block, without its comment."""
    for block in re.findall(r"```console\n(.*?)```", page.read_text(), flags=re.S):
        for line in block.splitlines():
            assert line.startswith("$ "), line
            yield line.removeprefix("$ ").partition(" #")[0].strip()


@pytest.mark.parametrize("page", [README, INSIDE, OWN_CURVES], ids=["README", "maml_cli/README", "tasks/README"])
def test_every_maml_command_of_the_page_runs_in_its_order(page: Path, cli: Cli) -> None:
    """Shortened to twelve outer steps and ten tasks, and to a checkpoint that such a run has."""
    for name in ("best-5shot", "finn-10shot"):
        shutil.copytree(ROOT / "outputs" / "published" / name, f"outputs/published/{name}")
    Path("points.csv").write_text("x,y\n0,1\n1,2\n3,-1\n")
    Path("station.csv").write_text("day,celsius\n15,-2\n180,21\n300,8\n")
    commands = [shlex.split(command)[1:] for command in _commands(page) if command.startswith("maml ")]
    assert len(commands) >= (4 if page == OWN_CURVES else 9)
    for arguments in commands:
        resumes = "--resume" in arguments and "auto" not in arguments
        short = [] if resumes else SHORT.get(arguments[0], [])
        words = [word.replace("step-00001000", "step-00000004") for word in arguments]
        words = [word.replace("outer.steps=40000", "outer.steps=24") for word in words]
        result = cli(*words, *short)
        assert result.code == 0, (arguments, result.err)


def test_other_commands_are_targets_of_the_makefile_or_clone_the_repository() -> None:
    others = {command for page in PAGES for command in _commands(page) if not command.startswith("maml ")}
    assert others == {
        "git clone <this repository> maml && cd maml",
        "make train",
        "make test",
        "uv pip install --torch-backend cpu -c constraints.txt .",
        *_commands(SHARED),
    }
    makefile = (ROOT / "Makefile").read_text()
    prose = re.findall(r"`make ([a-z-]+)`", "".join(page.read_text() for page in PAGES))
    assert {"bench", "results", "docs"} <= set(prose)
    for target in {"train", "test", *prose}:
        assert re.search(rf"^{target}: install", makefile, flags=re.M), target


def test_the_commands_for_several_processes_train_and_the_script_has_ten_lines(cli: Cli) -> None:
    """Each as one process alone here; the number of processes is that of torchrun."""
    commands = [shlex.split(command) for command in _commands(SHARED)]
    (script,) = re.findall(r"```bash\n(.*?)```", SHARED.read_text(), flags=re.S)
    assert len(script.splitlines()) == 10
    commands.append(shlex.split(script.replace("\\\n", " "), comments=True))
    cli("presets", "copy", "smoke", "mine.yaml")
    for words in commands:
        assert "torchrun" in words and words.count("-m") == 1
        arguments = words[words.index("maml_cli") + 1 :]
        assert words[words.index("maml_cli") - 1] == "-m" and arguments[0] == "train"
        assert cli(*arguments, *SHORT["train"]).code == 0, words


def test_a_shell_that_expands_brackets_gets_them_quoted() -> None:
    """zsh refuses a word such as tasks.phase=[0,1] that is not quoted."""
    commands = [command for page in PAGES for command in _commands(page)]
    assert any("'tasks.phase=[" in command for command in commands)
    assert not any(re.search(r"[\[*?]", re.sub(r"'[^']*'", "", command)) for command in commands)


def test_every_command_is_in_the_readme() -> None:
    groups = {group.name for group in app.registered_groups} | {
        command.name or command.callback.__name__ for command in app.registered_commands if command.callback
    }
    assert {command.split()[1] for command in _commands(README) if command.startswith("maml ")} == groups


def test_generated_pages_and_sections_are_current() -> None:
    """If this fails: make docs."""
    for path, text in generated_pages(ROOT).items():
        assert (ROOT / path).read_text() == text, path


def test_generated_figures_are_current_and_equal_data_give_equal_bytes(tmp_path: Path) -> None:
    """If this fails: make docs. Up to one pixel of ten thousand may differ, for the sake of other processors."""
    published = ROOT / PUBLISHED
    folders = [tmp_path / "first", tmp_path / "second"]
    for folder in folders:
        folder.mkdir()
        draw_generated_figures(published, folder)
    for file in (files := sorted(folders[0].iterdir())):
        assert file.read_bytes() == (folders[1] / file.name).read_bytes()
        drawn, committed = imread(file), imread(published / file.name)
        assert drawn.shape == committed.shape and (abs(drawn - committed) > 0.1).any(axis=2).mean() < 1e-4, file.name
    assert [file.name for file in files] == ["bench-growth.png", "results-10shot.png", "results-5shot.png"]


def test_every_published_figure_is_on_a_page_and_has_at_most_200_kibibytes() -> None:
    pictures = {file for page in PAGES for file in re.findall(r"([\w-]+\.png)\)", page.read_text())}
    files = list((ROOT / PUBLISHED).glob("*.png"))
    assert {file.name for file in files} == pictures
    assert all(file.stat().st_size <= 200 * 1024 for file in files)


def test_a_section_is_replaced_between_its_marks_and_the_marks_must_be_there() -> None:
    page = "a\n<!-- x -->\nold\n<!-- end of x -->\nb\n"
    assert fill_sections(page, {"x": "new\n"}) == "a\n<!-- x -->\nnew\n<!-- end of x -->\nb\n"
    for broken in (page.replace("<!-- x -->", ""), page.replace("end of x", "end of y")):
        with pytest.raises(ValueError, match="no marks of section x"):
            fill_sections(broken, {"x": "new\n"})


def test_all_modules_are_on_the_map() -> None:
    page = INSIDE.read_text()
    for path in (ROOT / "maml_cli").rglob("*.py"):
        name = path.relative_to(ROOT / "maml_cli").as_posix()
        if path.name == "__init__.py":
            name = name.removesuffix("__init__.py")
        if name and path.name != "__main__.py":
            assert f"| `{name}` | " in page or f"| **`{name}`** | **" in page, name


def test_the_first_sentence_ends_neither_in_an_abbreviation_nor_at_the_end_of_a_line(tmp_path: Path) -> None:
    module = tmp_path / "module.py"
    module.write_text('"""MAML of Finn et al. 2017\n(or a|b): two lines. Not this.\n\nNor this."""\n')
    assert first_sentence(module) == "MAML of Finn et al. 2017 (or a\\|b): two lines."


def test_the_presets_are_all_listed_with_their_summaries() -> None:
    page = (ROOT / "configs" / "README.md").read_text()
    for name in presets.names():
        assert f"| `{name}` | {presets.summary(name)} |" in page


@pytest.mark.parametrize("page", [*PAGES, TUTORIAL], ids=lambda page: page.relative_to(ROOT).as_posix())
def test_links_pictures_and_anchors_exist(page: Path) -> None:
    targets = re.findall(r"\]\(([^)]+)\)", page.read_text())
    for target in targets:
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        file = page.parent / name if name else page
        assert file.exists(), target
        headings = re.findall(r"^#+ (.*)$", file.read_text(), flags=re.M) if anchor else []
        assert not anchor or anchor in [
            re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings
        ], target


def test_the_readme_is_short() -> None:
    assert len(README.read_text().splitlines()) <= 200


def test_exit_codes_are_the_documented_ones() -> None:
    documented = {int(code) for code in re.findall(r"^\| (\d+) \| ", INSIDE.read_text(), flags=re.M)}
    kinds: list[type[errors.UserError]] = [
        errors.ConfigError,
        errors.FileError,
        errors.CheckpointError,
        errors.DivergedError,
    ]
    assert documented == {0, 1, *(kind.exit_code for kind in kinds)}


def test_ci_runs_the_targets_that_the_makefile_has() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert re.findall(r"- run: (.*)", workflow) == ["make test", "make smoke", "make train", "make test-full"]
    assert "make test" in (ROOT / ".ci" / "run").read_text()
    assert "export MAML_FULL_TESTS := 1" in (ROOT / "Makefile").read_text()
