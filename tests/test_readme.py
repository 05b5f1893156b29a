"""The README is true: its commands run, its reference is current, its JSON keys and links exist."""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from maml_cli.config import presets
from maml_cli.dev.generated_docs import fill, generated
from tests.conftest import Cli, Tiny

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()
COMMANDS = [
    line.removeprefix("$ ").partition("#")[0].strip()
    for block in re.findall(r"```console\n(.*?)```", README, flags=re.S)
    for line in block.splitlines()
]
SHORT = {
    "train": [*Tiny, "-s", "run.checkpoint_every=4", "-s", "run.device=cpu"],
    "eval": ["--tasks", "10"],
    "plot": ["--tasks", "10"],
    "compare": ["--tasks", "10"],
}


def test_every_maml_command_runs_in_the_order_of_the_readme(cli: Cli) -> None:
    """Shortened to twelve outer steps and ten tasks, and to a checkpoint that such a run has."""
    shutil.copytree(ROOT / "outputs" / "published", "outputs/published")
    ran = [shlex.split(command)[1:] for command in COMMANDS if command.startswith("maml ")]
    assert len(ran) > 20
    for arguments in ran:
        more = [] if "--resume" in arguments and "auto" not in arguments else SHORT.get(arguments[0], [])
        words = [word.replace("step-00001000", "step-00000004") for word in arguments]
        result = cli(*words, *more)
        assert result.code == 0, (arguments, result.err)


def test_every_make_target_exists() -> None:
    targets = {command.split()[1] for command in COMMANDS if command.startswith("make ")}
    makefile = (ROOT / "Makefile").read_text()
    assert targets == {"train", "test", "results"}
    assert all(f"\n{target}: install" in makefile for target in {*targets, "smoke"})
    assert all(command.split()[0] in {"make", "maml"} for command in COMMANDS)


def test_what_is_generated_is_current() -> None:
    """If this fails: make reference."""
    parts = generated(ROOT / "outputs" / "published")
    for name, text in parts.items():
        (found,) = re.findall(rf"<!-- {name} -->\n(.*?)<!-- end of {name} -->", README, flags=re.S)
        assert found == text, name
    assert fill(README, parts) == README


def test_the_presets_are_all_listed_in_their_own_words() -> None:
    for name in presets.names():
        assert f"| `{name}` | {presets.summary(name)} |" in README


def test_links_and_pictures_exist() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target


@pytest.mark.parametrize("command", ["train", "eval", "plot", "compare", "check", "info", "presets", "config"])
def test_every_command_is_in_the_readme(command: str) -> None:
    assert f"$ maml {command}" in README


def test_the_ci_of_the_project_runs_what_the_readme_says() -> None:
    workflow = (ROOT / ".github" / "workflows" / "ci.yml").read_text()
    assert "run: make test" in workflow and "run: make smoke" in workflow
    assert "make test" in (ROOT / ".ci" / "run").read_text()
