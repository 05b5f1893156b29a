"""The page on adding things is true: its example of an inner optimiser works, and half of it is refused."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

ROOT = Path(__file__).parent.parent


class Edit(NamedTuple):
    """A block of the page: the edit of a file, or a new file.

    file: relative to the root of the project.
    before: lines of the file that the edit replaces; empty for a new file.
    after: the lines in their place.
    """

    file: str
    before: str
    after: str


def _edits(heading: str) -> list[Edit]:
    """The `diff` blocks of a section of the page, in their order."""
    page = (ROOT / "maml_cli" / "README.md").read_text()
    section = re.split(r"^### ", page.partition(f"\n### {heading}\n")[2], flags=re.MULTILINE)[0]
    blocks = [dedent(block) for block in re.findall(r"^ *```diff\n(.*?)^ *```$", section, re.DOTALL | re.MULTILINE)]
    edits = []
    for block in blocks:
        header, *lines = block.splitlines()
        before, after = (
            "".join(f"{line[1:]}\n" for line in lines if line[:1] in ("", " ", sign)) for sign in ("-", "+")
        )
        edits.append(Edit(header.removeprefix("+++ "), before, after))
    return edits


EDITS = _edits("An inner optimiser")


def _apply(edit: Edit, root: Path) -> None:
    file = root / edit.file
    if not edit.before:
        with file.open("x") as stream:
            stream.write(edit.after)
        return
    text = file.read_text()
    assert text.count(edit.before) == 1, edit
    file.write_text(text.replace(edit.before, edit.after))


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """A copy of the package, the presets and the tests."""
    for name in ("maml_cli", "configs", "tests"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=shutil.ignore_patterns("__pycache__"))
    return tmp_path


def _run(project: Path, module: str, *arguments: str) -> "subprocess.CompletedProcess[str]":
    environment = os.environ | {"PYTHONPATH": str(project)}
    command = [sys.executable, "-m", module, *arguments]
    return subprocess.run(command, cwd=project, env=environment, capture_output=True, text=True, check=False)


SIGN = ["-c", "smoke", "-s", "inner.optimizer=sign"]
SHORT = ["-s", "outer.steps=3", "-s", "run.eval_tasks=3", "-q"]


def test_every_block_of_the_example_is_an_edit_of_a_file_of_the_project() -> None:
    files = [edit.file for edit in EDITS]
    assert files[:3] == [
        "maml_cli/config/inner_schema.py",
        "maml_cli/core/update_rules.py",
        "maml_cli/checks/task_learner.py",
    ]
    assert files[3:] == [
        "configs/sign-10shot.yaml",
        "maml_cli/config/configs_page.py",
        "tests/test_presets.py",
        "tests/test_rules.py",
        "tests/test_rules.py",
        "tests/conformance.py",
    ]


def test_a_name_that_only_the_schema_has_is_refused_with_the_table_that_lacks_it(project: Path) -> None:
    """By training and check; and by the check as long as the independent implementation lacks it."""
    unknown = _run(project, "maml_cli", "train", *SIGN, *SHORT)
    assert unknown.returncode == 2 and "inner.optimizer must be sgd or adam, got 'sign'" in unknown.stderr
    schema, update_rule, *_ = EDITS
    _apply(schema, project)
    message = "inner.optimizer: sign has no row in the table {}.INNER_OPTIMIZERS, which has sgd, adam"
    for command in (["train", *SIGN, *SHORT], ["check", *SIGN]):
        refused = _run(project, "maml_cli", *command)
        assert refused.returncode != 0 and message.format("core.update_rules") in refused.stderr, command
    assert not (project / "outputs").exists()
    _apply(update_rule, project)
    trained = _run(project, "maml_cli", "train", *SIGN, *SHORT)
    assert trained.returncode == 0, trained.stderr
    checked = _run(project, "maml_cli", "check", *SIGN)
    assert checked.returncode != 0 and message.format("checks.task_learner") in checked.stderr


def test_the_example_trains_and_passes_the_gradient_checks_and_its_own_tests(project: Path) -> None:
    for edit in EDITS:
        _apply(edit, project)
    trained = _run(project, "maml_cli", "train", "-c", "sign-10shot", *SHORT)
    assert trained.returncode == 0, trained.stderr
    checked = _run(project, "maml_cli", "check", "-c", "sign-10shot")
    assert checked.returncode == 0 and "WRONG" not in checked.stdout, checked.stdout + checked.stderr
    selected = ["-k", "sign or pairwise or expected_settings or row_for_each_name"]
    files = ["tests/test_rules.py", "tests/test_presets.py", "tests/test_registries.py", "tests/test_engines.py"]
    options = ["-q", "-p", "no:cacheprovider"]
    tested = _run(project, "pytest", *options, *files, *selected)
    assert tested.returncode == 0, tested.stdout
    assert re.search(r"\d+ passed", tested.stdout), tested.stdout
