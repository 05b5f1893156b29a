"""Text from outside is data: names of runs and files are no markup, no formulas and no commands to a terminal."""

import json
import os
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from maml_cli.errors import ConfigError, printable
from maml_cli.reporting.canvas import label_text
from tests.conftest import ROOT, Cli

NAMES = ["[bold]", "$x^$", "日本", "\x1b[31mred", "a\nb", "_under"]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_the_name_of_a_run_is_shown_as_it_is_with_escapes_for_what_does_not_print(
    name: str, trained: str, cli: Cli
) -> None:
    run = Path("outputs") / name
    Path(trained).rename(run)
    evaluated = cli("eval", run, "--tasks", "2", "--steps", "1", "--set", "tasks.noise=0")
    assert evaluated.code == 0 and f"{printable(str(run))} at outer step" in evaluated.out
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # of missing glyphs
        plotted = cli("plot", run, "--kind", "curve", "--format", "svg")
    assert plotted.code == 0
    compared = cli("compare", run, run, "--tasks", "2", "--json")
    labels = [row["label"] for row in json.loads(compared.out)["results"][0]["runs"]]
    assert compared.code == 0 and all(label.startswith(str(run)) for label in labels)


@pytest.mark.parametrize("name", ["a\nb", "\udcff", "é"], ids=ascii)
def test_a_printed_path_has_the_bytes_of_the_file_in_every_encoding(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "maml_cli", "presets", "copy", "smoke", name]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True)
    assert result.stdout == os.fsencode(name) + b"\n" and (tmp_path / name).is_file()


def test_every_line_of_an_error_prints() -> None:
    error = ConfigError("a\nb", "\x1b[0m")
    assert error.lines == ["a\\nb", "\\x1b[0m"] and str(error) == "a\\nb\n\\x1b[0m"


def test_labels_have_escapes_for_glyphs_that_the_font_lacks_and_keep_their_end() -> None:
    assert label_text("日本", 40) == "\\u65e5\\u672c" and label_text("_x", 40) == " _x"
    assert label_text("a" * 300 + "b", 10) == "…" + "a" * 8 + "b"
