"""The commands eval, plot and check: more inner steps than alphas, learners of every kind, tables of 80 columns."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import NUM_CHECKS, TINY_RUN, Cli


def _train(cli: Cli, *options: str, config: str = "smoke") -> Path:
    """The run directory of a short training."""
    return Path(cli("train", "-c", config, *TINY_RUN, "-q", *options).out.strip())


def test_inner_steps_beyond_the_last_alpha_are_refused_unless_after_last_step_is_set(cli: Cli) -> None:
    changes = ["inner.steps=2", "inner.alpha.per_step=true", "inner.alpha.learned=true"]
    run = _train(cli, *(word for change in changes for word in ("-s", change)))
    by_default = json.loads(cli("eval", "--checkpoint", run, "--tasks", 3, "--json").out)["results"][0]
    assert [step["step"] for step in by_default["steps"]] == [0, 1, 2]
    for command in ("eval", "--steps", 3), ("plot", "--kind", "fit", "--steps", 3):
        refused = cli(command[0], "--checkpoint", run, "--tasks", 3, *command[1:])
        assert refused.code == 2 and refused.out == ""
        assert refused.err.startswith(
            "--steps 3: outputs/smoke has alphas for 2 inner steps and no rule for the rest; give at"
        )
    options = ["--steps", 3, "--tasks", 3, "--set", "inner.alpha.after_last_step=stop", "--json"]
    stopped = json.loads(cli("eval", "--checkpoint", run, *options).out)["results"][0]["steps"]
    assert stopped[3]["grid"] == stopped[2]["grid"] == by_default["steps"][2]["grid"]


@pytest.mark.parametrize("preset", ["oracle-10shot", "cavia-10shot", "reptile-10shot", "imaml-10shot", "best-5shot"])
def test_learners_of_every_kind_are_evaluated_and_drawn(cli: Cli, preset: str) -> None:
    run = cli("train", "-c", preset, "-s", "outer.steps=2", "-s", "run.log_every=1", "-s", "run.eval_tasks=2", "-q").out
    result = cli("eval", "--checkpoint", run.strip(), "--tasks", 4, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["results"][0]["steps"][0]["grid"]["mse"]["mean"] > 0
    drawn = cli("plot", "--checkpoint", run.strip(), "--tasks", 4)
    assert drawn.code == 0 and len(drawn.out.split()) == 4, drawn.err


def test_a_learner_trained_on_l1_is_reported_in_mean_absolute_error_and_others_in_mean_squared(cli: Cli) -> None:
    command = ["eval", "--checkpoint", _train(cli, config="lab-fixed-alpha"), "--tasks", 30, "--steps", 0]
    mae = json.loads(cli(*command, "--json").out)["results"][0]["steps"][0]["grid"]["mae"]["mean"]
    table = cli(*command).out
    assert "mean absolute error" in table and f"{mae:.4f} ±" in table
    assert "mean squared error" in cli("eval", "--checkpoint", _train(cli), "--tasks", 9).out


def test_a_diverging_row_of_the_table_is_not_cut_at_80_columns(cli: Cli, trained: str) -> None:
    arguments = ["eval", "--checkpoint", trained, "--tasks", "4", "--steps", "12", "--set", "tasks.amplitude=[80,90]"]
    out = cli(*arguments).out
    assert "…" not in out and max(map(len, out.splitlines())) <= 80
    assert any(" ± " in line and "e" in line.split(" ± ")[0].split()[-1] for line in out.splitlines()[4:17])


def test_a_training_curve_ends_at_the_checkpoint_that_it_is_drawn_for(
    cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maml_cli.reporting import training_figures

    drawn_steps: list[Any] = []
    curve_figure = training_figures.curve_figure

    def recording_curve_figure(traces: Any, **options: Any) -> Any:
        drawn_steps.append(([step for step, _ in traces.losses], [step for step, _ in traces.after]))
        return curve_figure(traces, **options)

    monkeypatch.setattr(training_figures, "curve_figure", recording_curve_figure)
    for step in 8, 12:
        file = f"{trained}/checkpoints/step-{step:08d}.pt"
        assert cli("plot", "--checkpoint", file, "--kind", "curve").code == 0
    assert drawn_steps == [([5], [0, 4, 8]), ([5, 10, 12], [0, 4, 8, 12])]


def test_a_checkpoint_outside_a_run_has_the_figures_that_need_no_metrics(cli: Cli, trained: str) -> None:
    Path("lone.pt").write_bytes((Path(trained) / "checkpoints" / "step-00000012.pt").read_bytes())
    result = cli("plot", "--checkpoint", "lone.pt", "--tasks", "5")
    assert result.code == 0 and result.out == "plots/fit.png\nplots/steps.png\n"
    assert result.err.splitlines() == [
        f"{kind}: not drawn: there is no metrics.jsonl around the checkpoint" for kind in ("curve", "alpha")
    ]


def test_errors_of_eighteen_digits_are_not_cut(cli: Cli, trained: str) -> None:
    assert "…" not in cli("eval", "--checkpoint", trained, "--tasks", "3", "--set", "tasks.amplitude=1e18").out


def test_verdicts_on_errors_of_300_digits_are_not_cut(cli: Cli) -> None:
    out = cli("check", "--set", "inner.alpha.init=1e-300").out
    assert "…" not in out and [line.split()[0] for line in out.splitlines()[1:-1]].count("ok") == NUM_CHECKS
