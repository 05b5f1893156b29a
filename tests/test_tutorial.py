"""The tutorial is true: every command in it runs as shown, and every number is one that they print."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.conftest import ROOT, Cli, shell
from tests.shown_output import agrees, assert_shown

TUTORIAL = ROOT / "configs" / "TUTORIAL.md"
NOTEBOOK = ROOT / "configs" / "tutorial.ipynb"
TOLERANCE = 0.15
"""Relative; other processors, and engines other than native, round differently."""


def _blocks(page: str) -> Iterator[tuple[str, list[str]]]:
    """Each command of the console blocks, with the output that the page shows below it."""
    for block in re.findall(r"```console\n(.*?)```", page, flags=re.S):
        for part in block.removeprefix("$ ").split("\n$ "):
            command, *shown = part.splitlines()
            yield command, shown


@pytest.mark.usefixtures("optimised_kernels")
def test_every_command_runs_and_prints_what_the_page_shows(cli: Cli, tmp_path: Path) -> None:
    for command, shown in _blocks(TUTORIAL.read_text()):
        if command.startswith("maml "):
            result = cli(*shlex.split(command)[1:])
            code, output = result.code, result.err + result.out
        else:
            process = shell(command, tmp_path)
            code, output = process.returncode, process.stdout
        assert code == 0, (command, output)
        assert_shown(shown, output.splitlines(), TOLERANCE)


def test_numbers_in_the_text_are_those_of_the_outputs_or_follow_from_them() -> None:
    """Decimal fractions outside the blocks, but for the formulas and inputs that are listed here with their reason."""
    page = TUTORIAL.read_text()
    printed = {number for _, shown in _blocks(page) for line in shown for number in re.findall(r"\d+\.\d+", line)}
    derived = {
        "0.1",  # an amplitude, an input of the example by hand, and the initial alpha of lab-learned-alpha
        "0.5",  # a frequency, and the factor of the loss by hand
        "2.5",  # the target by hand, (3² + 4²) * 0.1
        "1.2",  # the error by hand, (2² + 3²) * 0.1 - 2.5
        "0.48",  # its gradient in a, 1.2 * 0.2 * 2
        "0.72",  # its gradient in b, 1.2 * 0.2 * 3
        "3.72",  # b after the step, 3 + 0.72
        "0.03",  # alpha of lab-fixed-alpha
        "0.01",  # alpha of a trial
        "0.3",  # alpha of a trial
        "0.0173",  # 0.017285 of the exported metrics
        "2.728",  # 3 sin(-2)
        "2.270",  # 3 sin(4)
        "3.1416",  # pi
    }
    text = re.sub(r"```.*?```", "", page, flags=re.S)
    assert set(re.findall(r"\d+\.\d+", text)) - printed <= derived


@pytest.mark.parametrize(
    ("shown", "printed", "is_equal"),
    [
        ("a 1.00 ± 0.1", "a  1.01 ± 0.1", True),
        ("a 1.00", "a 1.2", False),
        ("K = 10", "K = 11", False),
        ("1* 0.5", "1 0.5", False),
        ("loss -1.0", "loss 1.0", False),
        ("trial 2 0.5", "trial 2 0.5 complete", False),
    ],
)
def test_lines_agree_in_text_and_whole_numbers_and_nearly_in_others(shown: str, printed: str, is_equal: bool) -> None:
    assert agrees(shown, printed, 0.1) == is_equal


def test_lines_that_are_missing_left_out_or_out_of_order_are_refused() -> None:
    assert_shown(["...", "b", "..."], ["a", "b", "c"], 0.1)
    for shown in (["b"], ["a"], ["...", "c", "b", "..."], ["...", "d"], []):
        with pytest.raises(AssertionError):
            assert_shown(shown, ["a", "b", "c"], 0.1)


def test_the_notebook_runs_and_prints_what_it_shows(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In the kernel that Jupyter starts, which imports this source tree."""
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    notebook = nbformat.reads(NOTEBOOK.read_text(), as_version=4)  # type: ignore[no-untyped-call]
    shown = [list(_printed(cell)) for cell in notebook.cells]
    NotebookClient(notebook, kernel_name="python3", resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert sum(map(len, shown)) >= 10
    for cell, expected in zip(notebook.cells, shown, strict=True):
        assert_shown(expected, list(_printed(cell)), TOLERANCE)
    assert sum("image/png" in output.get("data", {}) for cell in notebook.cells for output in _outputs(cell)) == 2


def _outputs(cell: nbformat.NotebookNode) -> list[nbformat.NotebookNode]:
    return list(cell.get("outputs", []))


def _printed(cell: nbformat.NotebookNode) -> Iterator[str]:
    """Lines on stdout; a warning on stderr is an error."""
    for output in _outputs(cell):
        if output.output_type == "stream":
            assert output.name == "stdout", output.text
            yield from output.text.splitlines()
