"""The Python interface: the functions of the commands, the inner loop for models of one's own, and its types."""

import json
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import torch

import maml_cli as maml
from maml_cli.errors import ConfigError, DataError, FileError, InterruptedRun
from maml_cli.runs.published import CHECKPOINTS, published_checkpoint, published_names
from tests.conftest import ROOT, Cli

QUICK = ("outer.steps=4", "run.eval_tasks=2", "run.engine=eager")


def test_the_package_lists_its_public_names_and_imports_no_torch_before_one_is_used() -> None:
    assert maml.__all__ == sorted(maml.__all__, key=lambda name: (not name[0].isupper(), name))
    assert all(hasattr(maml, name) for name in maml.__all__)
    code = "import sys, maml_cli; maml_cli.__version__; print({'torch', 'numpy', 'matplotlib'} & sys.modules.keys())"
    assert subprocess.check_output([sys.executable, "-c", code], cwd=ROOT, text=True) == "set()\n"
    with pytest.raises(AttributeError, match="module 'maml_cli' has no attribute 'fit'"):
        maml.fit  # noqa: B018


def test_mappings_list_the_presets_and_the_families() -> None:
    assert maml.presets["quickstart"].startswith("MAML on Finn's sinusoids") and "best-5shot" in maml.presets
    assert "sine" in maml.families
    assert maml.Config.from_yaml("finn-10shot", "inner.steps=3").inner.steps == 3
    with pytest.raises(ConfigError, match="did you mean finn-10shot"):
        maml.Config.from_yaml("finn-10shots")


USER_SCRIPT = """
import numpy as np
import torch
import maml_cli as maml

run = maml.load("best-5shot")
x = np.linspace(-4, 4, 5)
fitted = run.adapt(x, np.sin(x), steps=2)
y_new = fitted.predict(np.array([0.5]))
error: float = fitted.support_error[0]
low, high = fitted.band(x)

def on_step(step: int, loss: float) -> None:
    print(step, loss)

config = maml.Config.from_yaml("quickstart", "outer.steps=10")
trained: maml.TrainedRun = maml.train(config, "inner.steps=2", out="outputs/mine", on_step=on_step)
result: maml.EvaluationResult = maml.evaluate(trained, tasks=100, shots=[5, 10])
rows = [row["mean"] for row in result.to_rows()]
theta = torch.ones(1, requires_grad=True)
adapted = maml.adapt(lambda params, x: (params["w"] * x).sum(), {"w": theta}, torch.ones(3), alpha=0.1, steps=2)
names: list[str] = [*maml.presets, *maml.families]
"""


def test_a_users_script_is_typed(tmp_path: Path) -> None:
    """As it is, and with text for a number of inner steps, which is an error on its line."""
    script = tmp_path / "script.py"
    for text, expected in (
        (USER_SCRIPT, ""),
        (USER_SCRIPT.replace("steps=2)\ny_new", 'steps="2")\ny_new'), ":8: error:"),
    ):
        script.write_text(text)
        command = [sys.executable, "-m", "mypy", "--strict", "--no-error-summary", str(script)]
        checked = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
        assert (checked.stdout == "") == (expected == "") and expected in checked.stdout, checked.stdout


def test_training_from_python_gives_the_bytes_of_the_command(cli: Cli) -> None:
    """By preset and overrides, by a mapping, and by a config; with the steps reported as they are taken."""
    command = cli(
        "train", "-c", "smoke", *(word for change in QUICK for word in ("-s", change)), "--out", "command", "-q"
    )
    assert command.code == 0
    steps: list[tuple[int, float]] = []
    threads = torch.get_num_threads()
    run = maml.train("smoke", *QUICK, out="python", on_step=lambda step, loss: steps.append((step, loss)))
    assert run.checkpoint.step == 4 and steps[-1][0] == 4 and all(loss > 0 for _, loss in steps)
    config = maml.Config.from_yaml("smoke", *QUICK)
    maml.train(config, out=Path("from-config"))
    maml.train(config.model_dump(mode="python"), out="from-mapping")
    files = [Path(name, "checkpoints/step-00000004.pt").read_bytes() for name in ("command", "python", "from-config")]
    assert len({*files, Path("from-mapping/checkpoints/step-00000004.pt").read_bytes()}) == 1
    assert torch.get_num_threads() == threads
    with pytest.raises(ConfigError, match=r"config: inner.steps must be at least 1, got 0"):
        maml.train({"inner": {"steps": 0}})
    with pytest.raises(FileError, match="python: not empty"):
        maml.train("smoke", *QUICK, out="python")


def test_training_works_outside_of_the_main_thread(tmp_path: Path) -> None:
    """Where no signal can be handled, as in the cells of some notebooks."""
    results: list[Any] = []
    thread = threading.Thread(target=lambda: results.append(maml.train("smoke", *QUICK, out=tmp_path / "run")))
    thread.start()
    thread.join()
    assert results[0].checkpoint.step == 4


def test_ctrl_c_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    def interrupt(step: int, loss: float) -> None:
        import os
        import signal

        os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(InterruptedRun, match="checkpoint saved; continue with: maml train --resume"):
        maml.train("smoke", "outer.steps=100000", *QUICK[1:], out=tmp_path / "run", on_step=interrupt)
    assert 0 < maml.load(tmp_path / "run").checkpoint.step < 100_000


def test_an_evaluation_is_the_document_of_the_command_and_rows_of_the_same_numbers(cli: Cli) -> None:
    run = maml.train("smoke", *QUICK, out="run")
    document = json.loads(cli("eval", "run", "--tasks", "30", "--shots", "3,4", "--steps", "2", "--json").out)
    result = maml.evaluate(run, tasks=30, shots=(3, 4), steps=2)
    assert json.loads(json.dumps({"schema_version": 1, **result.to_dict()})) == document
    rows = result.to_rows()
    (row,) = [
        row
        for row in rows
        if (row["shots"], row["predictor"], row["inner_step"], row["points"], row["measure"])
        == (4, "learner", 2, "query", "mae")
    ]
    assert row["mean"] == document["results"][1]["steps"][2]["query"]["mae"]["mean"] and row["seed"] is None
    predictors = {row["predictor"] for row in rows}
    assert predictors == {"learner", "random_init", "zero", "best_unadapted", "least_squares"}
    assert len(rows) == 2 * (3 + 3 + 3) * 3 * 2
    assert maml.evaluate(run, tasks=30, shots=3, steps=2).results[0] == result.results[0]
    for arguments, message in (({"tasks": 1}, "tasks: 1; must be at least 2"), ({"shots": 0}, "shots: 0; must be at")):
        with pytest.raises(DataError, match=message):
            maml.evaluate(run, **arguments)  # type: ignore[arg-type]


def _line(params: dict[str, torch.Tensor], points: list[tuple[float, float]]) -> torch.Tensor:
    """Sum of squared errors of theta x."""
    return torch.stack([(params["theta"] * x - y) ** 2 for x, y in points]).sum()


@pytest.mark.parametrize(("second_order", "expected"), [(True, 4.48), (False, -2.8)])
def test_the_inner_loop_for_ones_own_model_gives_the_meta_gradient_of_a_line(
    second_order: bool, expected: float
) -> None:
    """theta = 1, points (2, 4) and (3, 1): gradient 2 (2 - 4) 2 + 2 (3 - 1) 3 = 4, adapted 1 - 0.1 * 4 = 0.6, whose
    derivative is 1 - 0.1 * 2 (4 + 9) = -1.6. Query (1, 2): 2 (0.6 - 2) = -2.8 in theta', so 4.48 or -2.8 in theta; in
    alpha -2.8 * -4 = 11.2."""
    theta = torch.tensor(1.0, dtype=torch.float64, requires_grad=True)
    alpha = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    adapted = maml.adapt(_line, {"theta": theta}, [(2.0, 4.0), (3.0, 1.0)], alpha=alpha, second_order=second_order)
    assert adapted["theta"].item() == pytest.approx(0.6, rel=1e-12)
    gradients = torch.autograd.grad(_line(adapted, [(1.0, 2.0)]), [theta, alpha])
    assert [gradient.item() for gradient in gradients] == pytest.approx([expected, 11.2], rel=1e-12)


def test_step_sizes_may_differ_between_parameters_and_inner_steps() -> None:
    """On sum(w^2) a step of a multiplies w by 1 - 2 a: by 0.8 and then 0.5, the last step size for the third step."""
    params = {"w": torch.tensor([1.0, 2.0], dtype=torch.float64), "b": torch.tensor(4.0, dtype=torch.float64)}

    def loss(values: dict[str, torch.Tensor], support: object) -> torch.Tensor:
        return (values["w"] ** 2).sum() + values["b"] ** 2

    adapted = maml.adapt(loss, params, None, alpha=[0.1, {"w": 0.25, "b": torch.tensor(0.5)}], steps=3)
    assert adapted["w"].tolist() == pytest.approx([0.8 * 0.25, 1.6 * 0.25]) and adapted["b"].item() == 0.0
    assert adapted["w"].shape == (2,) and adapted["b"].shape == ()
    with torch.no_grad():
        assert not maml.adapt(loss, {"w": params["w"].requires_grad_(), "b": params["b"]}, None, alpha=0.1)[
            "w"
        ].requires_grad
    with pytest.raises(DataError, match="alpha: an empty list"):
        maml.adapt(loss, params, None, alpha=[])


def test_published_runs_are_found_by_their_names_from_any_directory(tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    assert published_names() == sorted(
        file.parent.parent.name
        for file in (ROOT / "outputs" / "published").glob("*/checkpoints/*.pt")
        if "-seed" not in str(file)
    )
    named, by_path = maml.load("best-5shot"), maml.load("outputs/published/best-5shot")
    assert named.title == by_path.title == "best-5shot at outer step 120,000 of 120,000"
    assert named.checkpoint.run is None
    assert not CHECKPOINTS.exists() and published_checkpoint(Path("best-5shot/x")) is None
    for wrong in ("best-6shot", "outputs/best-5shot", "published/best-5shot"):
        with pytest.raises(FileError, match="no such run or checkpoint"):
            maml.load(wrong)


def test_figures_of_a_published_run_are_not_written_next_to_it(cli: Cli) -> None:
    assert cli("plot", "best-5shot", "--kind", "fit").out == "outputs/plots/best-5shot/fit.png\n"
