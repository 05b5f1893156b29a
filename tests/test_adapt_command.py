"""`maml adapt`: tables of every form, predictions, errors, figures, and messages about what cannot be read."""

import csv
import io
import json
import math
import os
import random
import subprocess
import sys
import threading
from pathlib import Path

import pytest

import maml_cli as maml
from maml_cli.tables import table
from tests.conftest import ROOT, Cli

XS = [-4.5 + index for index in range(10)]
POINTS = [(x, 2 * math.sin(x - 1)) for x in XS]


def _write(name: str, rows: list[tuple[object, ...]], header: str = "x,y", separator: str = ",") -> str:
    Path(name).write_text("\n".join([header, *(separator.join(map(str, row)) for row in rows)]) + "\n")
    return name


@pytest.fixture
def points(cli: Cli) -> str:
    """A table of ten points of 2 sin(x - 1)."""
    return _write("points.csv", [*POINTS])


def test_predictions_and_errors_are_those_of_the_python_interface(cli: Cli, points: str) -> None:
    fitted = maml.load("best-5shot").adapt(*zip(*POINTS, strict=True))
    grid = [-5.0, -2.5, 0.0, 2.5, 5.0]
    result = cli("adapt", "best-5shot", "--data", points, "--range=-5:5:5", "--out", "fit.csv", "--json")
    document = json.loads(result.out)
    assert document["support_mse"] == pytest.approx(fitted.support_error, rel=1e-4)
    assert document["query_mse"] is None and document["num_tasks"] == 1 and document["num_support"] == 10
    rows = [*csv.reader(Path("fit.csv").read_text().splitlines())]
    assert rows[0] == ["x", "y", "y0", "y1", "y2", "y3", "y4", "y5"]
    assert [float(row[0]) for row in rows[1:]] == grid and all(row[1] == "" for row in rows[1:])
    for step, expected in enumerate(fitted.steps(grid)):
        assert [float(row[2 + step]) for row in rows[1:]] == pytest.approx(expected, rel=1e-3, abs=1e-4)


def test_query_points_are_predicted_and_not_adapted_to(cli: Cli) -> None:
    """Marked by split, or in the table of --at; the error is that at these points."""
    query = [(0.1, 5.0), (0.2, -5.0)]
    _write("points.csv", [*POINTS])
    _write("at.csv", [*query])
    _write("split.csv", [*((*p, "support") for p in POINTS), *((*p, "query") for p in query)], "x,y,split")
    fitted = maml.load("best-5shot").adapt(*zip(*POINTS, strict=True))
    expected = fitted.error([0.1, 0.2], [5.0, -5.0])
    for options in (["--data", "split.csv"], ["--data", "points.csv", "--at", "at.csv"]):
        document = json.loads(cli("adapt", "best-5shot", *options, "--json").out)
        assert document["query_mse"] == pytest.approx(expected, rel=1e-4)
        assert document["support_mse"] == pytest.approx(fitted.support_error, rel=1e-3, abs=1e-6)
    shown = cli("adapt", "best-5shot", "--data", "split.csv").out
    assert "adapted to 1 task, 10 support points, 2 query points" in shown


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("x,y\n1,2\n3,4.5\n", []),
        ("1,2\n3,4.5\n", []),
        ("x;y\n1;2\n3;4.5\n", []),
        ("x\ty\n1\t2\n3\t4.5\n", []),
        ("\ufeffx,y\r\n1,2\r\n\r\n3,4.5\r\n", []),
        (' "x" , "y" \n1 , 2\n 3,4.5e0', []),
        ("y,time,x\n2,a,1\n4.5,b,3\n", []),
        ("hour,celsius\n1,2\n3,4.5\n", ["--x", "hour", "--y", "celsius"]),
        ("\n\nx,y,split\n1,2,support\n3,4.5,Train\n", []),
    ],
)
def test_tables_with_separators_and_headers_of_all_forms_are_the_same_points(
    text: str, options: list[str], cli: Cli
) -> None:
    Path("points.csv").write_text(text, newline="")
    document = json.loads(cli("adapt", "finn-10shot", "--data", "points.csv", *options, "--json").out)
    assert [(record["x"], record["y"]) for record in document["predictions"]] == [(1.0, 2.0), (3.0, 4.5)]


def test_columns_that_are_not_used_are_named(cli: Cli) -> None:
    _write("points.csv", [(1, 2, "a", "b"), (3, 4, "c", "d")], "x,y,day,note")
    assert "points.csv: not used: day, note\n" in cli("adapt", "finn-10shot", "--data", "points.csv").err


def test_tasks_of_a_table_are_adapted_to_one_by_one(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows in any order; and in blocks of few rows, where those of a task follow one another."""
    tasks = {"a": POINTS, "b": [(x, -y) for x, y in POINTS[:7]], "c": [(x, y + 1) for x, y in POINTS[3:8]]}
    rows = [(label, *point) for label, of_task in tasks.items() for point in of_task]
    run = maml.load("best-5shot")
    alone = {label: run.adapt(*zip(*of_task, strict=True)) for label, of_task in tasks.items()}
    shuffled = random.Random(0).sample(rows, len(rows))
    for name, ordered, block_rows in (("sorted", rows, 12), ("shuffled", shuffled, 500_000)):
        monkeypatch.setattr(table, "BLOCK_ROWS", block_rows)
        monkeypatch.setattr(table, "ROWS_AT_A_TIME", 4)
        _write(f"{name}.csv", [*ordered], "station,x,y")
        done = cli("adapt", "best-5shot", "--data", f"{name}.csv", "--task", "station", "--range=0:1:2", "--json")
        document = json.loads(done.out)
        assert document["num_tasks"] == 3
        mean = [sum(fitted.support_error[step] for fitted in alone.values()) / 3 for step in range(6)]
        assert document["support_mse"] == pytest.approx(mean, rel=1e-3)
        for record in document["predictions"]:
            expected = [step[0] for step in alone[record["task"]].steps([record["x"]])]
            assert record["predictions"] == pytest.approx(expected, rel=1e-3, abs=1e-4)
    monkeypatch.setattr(table, "BLOCK_ROWS", 8)
    _write("again.csv", [*rows[:10], *rows[10:17], *rows[:3]], "station,x,y")
    again = cli("adapt", "best-5shot", "--data", "again.csv", "--task", "station", "--out", "no.csv")
    assert again.code == 2 and "occurs again; in a table of more than 8 rows" in again.err
    assert not Path("no.csv").exists()


def test_inputs_of_their_own_tasks_and_a_table_of_several_tasks(cli: Cli) -> None:
    _write("points.csv", [("a", 0, 1), ("a", 1, 2), ("b", 0, 3), ("b", 1, 4)], "task,x,y")
    _write("at.csv", [("b", 5), ("a", 6), ("b", 7)], "task,x")
    done = cli("adapt", "finn-10shot", "--data", "points.csv", "--at", "at.csv", "--out", "-")
    rows = [*csv.reader(io.StringIO(done.out))]
    assert [row[:3] for row in rows] == [["task", "x", "y"], ["a", "6.0", ""], ["b", "5.0", ""], ["b", "7.0", ""]]
    assert "adapted to 2 tasks, 4 support points; mean squared error, mean over tasks" in done.err


BAD: list[tuple[bytes, str]] = [
    (b"", "bad.csv: empty; give a header such as x,y and rows of numbers"),
    (b"\n \n", "bad.csv: empty; give a header such as x,y and rows of numbers"),
    (b"x,y\n", "bad.csv: a header without rows; give rows of numbers"),
    (b"x,y\n1,2\n", "bad.csv:2: the table has 1 support point; give two or more"),
    (b"x,y,split\n1,2,query\n", "bad.csv:2: the table has 0 support points; give two or more"),
    (b"x,y\n1,2\n2,abc\n", 'bad.csv:3: y is "abc"; give a number'),
    (b"x,y\n1,2\n2,\n", "bad.csv:3: y is empty; give a number"),
    (b"x,y\n1,2\nnan,2\n", 'bad.csv:3: x is "nan"; give a finite number, or leave the row out'),
    (b"x,y\n1,2\n1e999,2\n", 'bad.csv:3: x is "1e999"; give a finite number, or leave the row out'),
    (b"x,y\n1,2\n1_0,2\n", 'bad.csv:3: x is "1_0"; give a number'),
    (b"x,y\n1,2\n2\n", "bad.csv:3: 1 value where the first line has 2; give as many"),
    (b"x,y\n1,2\n2,3,4\n", "bad.csv:3: 3 values where the first line has 2; give as many"),
    (b"x,y\n1,5,2,5\n", "bad.csv:2: 4 values where the first line has 2; decimal commas? write 1.5"),
    (b"x;y\n1,5;2\n", 'bad.csv:2: x is "1,5", with a decimal comma; write 1.5'),
    (b"x,y\n1,2\n2,3\n1,3\n", "bad.csv:4: x = 1 of the table has two targets, 2 on line 2 and 3 on line 4; give one\n"),
    (b"x,y,split\n1,2,both\n", 'bad.csv:2: split is "both"; must be support or query'),
    (b"x,x,y\n1,2,3\n", 'bad.csv:1: two columns are named "x"; give each a name of its own'),
    (b"time,y\n1,2\n", 'bad.csv:1: no column "x"; there are time, y; choose one with --x COLUMN'),
    (b"x,temp\n1,2\n", 'bad.csv:1: no column "y"; there are x, temp; choose one with --y COLUMN'),
    (b"1,2,3\n1,2,3\n", "bad.csv:1: 3 columns without names; give x and y, or a header that names them"),
    (b"1 2\n2 3\n", "bad.csv:1: one column; separate x and y by commas, semicolons or tabs"),
    (b"x,y\n1,2\n2,\xe9\n", "bad.csv:3: not UTF-8 text; save the table as UTF-8"),
    ("x,y\n1,2\n".encode("utf-16"), "bad.csv:1: not UTF-8 text; save the table as UTF-8"),
    (b"x,y\n1,2\n\x00,3\n", "bad.csv:3: has a NUL byte; save the table as UTF-8 text"),
    (b"x,y\n" + b"1" * 200_000, "bad.csv:2: longer than 100,000 bytes; not a table"),
    (b'x,y\n1,"2"3"\n2,3\n', 'bad.csv:2: y is "23""; give a number'),
]


@pytest.mark.parametrize(("content", "message"), BAD, ids=[message for _, message in BAD])
def test_bad_tables_are_one_line_with_file_and_line_and_nothing_is_written(
    content: bytes, message: str, cli: Cli
) -> None:
    Path("bad.csv").write_bytes(content)
    done = cli("adapt", "finn-10shot", "--data", "bad.csv", "--out", "fit.csv", "--plot", "fit.png")
    assert (done.code, done.out) == (2, "") and done.err.startswith(message) and done.err.count("\n") == 1
    assert sorted(os.listdir()) == ["bad.csv"]


def test_tasks_that_are_too_large_are_refused_at_their_line(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(table, "BLOCK_ROWS", 50)
    monkeypatch.setattr(table, "ROWS_AT_A_TIME", 10)
    monkeypatch.setattr(table, "MAX_TASK_ROWS", 40)
    _write("bad.csv", [(x, x) for x in range(100)])
    done = cli("adapt", "finn-10shot", "--data", "bad.csv")
    assert done.code == 2 and "bad.csv:2: the table has more than 40 rows" in done.err


def test_paths_and_options_that_cannot_be_used_are_refused(cli: Cli, points: str) -> None:
    run = ["adapt", "finn-10shot"]
    for options, code, message in (
        (["--data", "missing.csv"], 3, "missing.csv: cannot be read: No such file or directory"),
        (["--data", "."], 3, ".: a directory; give a file"),
        ([], 2, "--data: missing; give a table with the columns x and y, or - for standard input"),
        (["--data", points, "--range", "1:0:5"], 2, "--range 1:0:5: must be LOW:HIGH:N, such as -5:5:100"),
        (["--data", points, "--range", "0:1:1e9"], 2, "--range 0:1:1e9: must be LOW:HIGH:N"),
        (["--data", points, "--range", "0:1:5", "--at", points], 2, "--at points.csv, --range: give one of the two"),
        (["--data", points, "--plot", "fit.bmp"], 2, "--plot fit.bmp: must end in .png, .svg or .pdf"),
        (["--data", points, "--out", "/dev/full"], 3, "--out /dev/full: cannot be written"),
        (["--data", points, "--plot", "points.csv/fit.png"], 3, "--plot points.csv/fit.png: cannot be written"),
        (["--data", "-", "--rescale"], 2, "--rescale: the table is read twice, which standard input cannot be"),
    ):
        done = cli(*run, *options)
        assert done.code == code and done.err.startswith(message), (options, done.err)
    assert sorted(os.listdir()) == ["points.csv"]


def test_standard_input_and_pipes_are_read_as_they_come(cli: Cli) -> None:
    text = "x,y\n" + "".join(f"{x},{y}\n" for x, y in POINTS)
    command = [sys.executable, "-m", "maml_cli", "adapt", "finn-10shot", "--data", "-", "--json"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=True, env=environment)
    assert json.loads(done.stdout)["num_support"] == 10 and done.stderr == ""
    os.mkfifo("fifo")
    writer = threading.Thread(target=lambda: Path("fifo").write_text(text))
    writer.start()
    assert json.loads(cli("adapt", "finn-10shot", "--data", "fifo", "--json").out)["num_support"] == 10
    writer.join()


def test_data_outside_of_the_trained_ranges_is_said_and_rescaled(cli: Cli) -> None:
    """Hours 0 to 24 and degrees 10 to 30: as if x were in [-5, 5] and y in [-5, 5]."""
    hours = [24 * index / 9 for index in range(10)]
    rows = [(hour, 20 + 10 * math.sin(hour / 12 * math.pi)) for hour in hours]
    low, high = min(y for _, y in rows), max(y for _, y in rows)
    _write("points.csv", [*rows])
    plain = cli("adapt", "best-5shot", "--data", "points.csv")
    assert "x from 0 to 24 leaves the trained range [-5, 5] by up to 19, 190% of its width" in plain.err
    assert "y from" in plain.err and "leaves the trained range [-5, 5] by up to 24" in plain.err
    rescaled = cli("adapt", "best-5shot", "--data", "points.csv", "--rescale", "--json")
    assert rescaled.err == ""
    document = json.loads(rescaled.out)

    def to_x(x: float) -> float:
        return x / 24 * 10 - 5

    def to_y(y: float) -> float:
        return (y - low) / (high - low) * 10 - 5

    fitted = maml.load("best-5shot").adapt([to_x(x) for x, _ in rows], [to_y(y) for _, y in rows])
    factor = ((high - low) / 10) ** 2
    assert document["support_mse"] == pytest.approx([factor * error for error in fitted.support_error], rel=1e-3)
    expected = [(value + 5) / 10 * (high - low) + low for value in fitted.predict([to_x(x) for x, _ in rows])]
    assert [record["predictions"][-1] for record in document["predictions"]] == pytest.approx(expected, rel=1e-4)
    assert (
        "rescaled onto the trained ranges: x to 0.416667 * x - 5"
        in cli("adapt", "best-5shot", "--data", "points.csv", "--rescale").out
    )


def test_figures_show_one_task_or_six(cli: Cli, points: str) -> None:
    assert cli("adapt", "finn-10shot", "--data", points, "--plot", "new/one.svg").code == 0
    one = Path("new/one.svg").read_text()
    assert "points of your own" in one and "Support points" in one
    _write("tasks.csv", [(f"station {t}", x, y * t) for t in range(8) for x, y in POINTS], "task,x,y")
    assert cli("adapt", "finn-10shot", "--data", "tasks.csv", "--plot", "six.svg").code == 0
    six = Path("six.svg").read_text()
    assert "station 5" in six and "station 6" not in six


def test_a_run_with_several_seeds_has_a_band(cli: Cli, points: str) -> None:
    cli(
        "train",
        "-c",
        "smoke",
        "-s",
        "outer.steps=2",
        "-s",
        "run.seeds=3",
        "-s",
        "run.eval_tasks=2",
        "--out",
        "run",
        "-q",
    )
    assert cli("adapt", "run", "--data", points, "--out", "fit.csv", "--plot", "fit.svg").code == 0
    rows = [*csv.DictReader(Path("fit.csv").read_text().splitlines())]
    low, high = maml.load("run").adapt(*zip(*POINTS, strict=True)).band(XS)
    assert [float(row["low"]) for row in rows] == pytest.approx(low, rel=1e-4, abs=1e-5)
    assert [float(row["high"]) for row in rows] == pytest.approx(high, rel=1e-4, abs=1e-5)
    assert "90 % band over seeds" in Path("fit.svg").read_text()
