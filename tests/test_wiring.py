"""What a config says reaches the place where it acts: each key, moved, changes exactly what it should."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.config import Config
from maml_cli.core import MetaParams, expand_to_tasks
from maml_cli.evaluation import Protocol, evaluate_run, fit_tasks, open_run, sample_test_tasks, summarise_tasks
from maml_cli.evaluation.evaluate import adapted_errors
from maml_cli.tasks import make_generator
from tests.conftest import NUM_CHECKS, TINY_RUN, Cli, shell

ROOT = Path(__file__).parent.parent


def _config(**sections: dict[str, Any]) -> Config:
    base: dict[str, dict[str, Any]] = {
        "model": {"hidden": [4], "activation": "tanh"},
        "outer": {"steps": 6, "tasks_per_step": 3},
        "run": {"dtype": "float64", "device": "cpu", "log_every": 1, "eval_every": 3, "eval_tasks": 4},
    }
    return Config.model_validate({k: base.get(k, {}) | sections.get(k, {}) for k in {*base, *sections}})


def test_more_steps_than_alphas_are_refused_unless_it_is_said_what_follows(cli: Cli) -> None:
    changes = ["inner.steps=2", "inner.alpha.per_step=true", "inner.alpha.learned=true"]
    run = cli(
        "train", "-c", "smoke", *TINY_RUN, "-q", *(word for change in changes for word in ("-s", change))
    ).out.strip()
    ended = json.loads(cli("eval", "--checkpoint", run, "--tasks", 3, "--json").out)["results"][0]
    assert [step["step"] for step in ended["steps"]] == [0, 1, 2]
    for command in ("eval", "--steps", 3), ("plot", "--kind", "fit", "--steps", 3):
        refused = cli(command[0], "--checkpoint", run, "--tasks", 3, *command[1:])
        assert refused.code == 2 and refused.out == ""
        assert refused.err.startswith(
            "--steps 3: outputs/smoke has alphas for 2 inner steps and no rule for the rest; give at"
        )
    going_on = ["--steps", 3, "--tasks", 3, "--set", "inner.alpha.after_last_step=stop", "--json"]
    stopped = json.loads(cli("eval", "--checkpoint", run, *going_on).out)["results"][0]["steps"]
    assert stopped[3]["grid"] == stopped[2]["grid"] == ended["steps"][2]["grid"]


@pytest.mark.parametrize("preset", ["oracle-10shot", "cavia-10shot", "reptile-10shot", "imaml-10shot", "best-5shot"])
def test_every_kind_of_learner_is_evaluated_and_drawn(cli: Cli, preset: str) -> None:
    run = cli("train", "-c", preset, "-s", "outer.steps=2", "-s", "run.log_every=1", "-s", "run.eval_tasks=2", "-q").out
    result = cli("eval", "--checkpoint", run.strip(), "--tasks", 4, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["results"][0]["steps"][0]["grid"]["mse"]["mean"] > 0
    drawn = cli("plot", "--checkpoint", run.strip(), "--tasks", 4)
    assert drawn.code == 0 and len(drawn.out.split()) == 4, drawn.err


def _opened(cli: Cli, *options: str, config: str = "smoke") -> Any:
    run = cli("train", "-c", config, *TINY_RUN, "-q", *options).out.strip()
    return open_run(Path(run))


def test_eval_is_on_the_test_tasks_and_random_networks_use_the_learned_alpha(cli: Cli) -> None:
    opened = _opened(cli, "-s", "inner.alpha.learned=true")
    opened.meta_params.rule_params["alpha"].fill_(0.003)
    (evaluation,) = evaluate_run(opened, Protocol(num_tasks=6, seed=5, steps=2))
    experiment = opened.experiment
    tasks = sample_test_tasks(experiment.family, seed=5, purpose="test", num_tasks=6, num_shots=10)
    stream = make_generator(5, "random-init")
    untrained = MetaParams(
        {key: value[None] for key, value in experiment.init_params(stream, 6).items()},
        {"alpha": torch.full((1, 6, 1, 1, 1), 0.003)},
    )
    for results, initial in (
        (evaluation.steps, expand_to_tasks(opened.meta_params, 6)),
        (evaluation.random_init, untrained),
    ):
        expected = adapted_errors(experiment, tasks, lambda count, m=initial: m, num_runs=1, steps=2)  # type: ignore[misc]
        for result, errors in zip(results, expected, strict=True):
            assert result.grid.mse.mean == pytest.approx(summarise_tasks(errors).grid.mse.mean, rel=1e-6)


def test_fits_are_adapted_to_the_points_that_they_show(cli: Cli) -> None:
    opened = _opened(cli)
    for index, fit in enumerate(fit_tasks(opened, Protocol(num_tasks=3, shots=(4,), steps=2))):
        params = {key: value[0].clone() for key, value in opened.meta_params.params.items()}
        x, y = (points.float().reshape(4, 1) for points in (fit.support_x, fit.support_y))
        for step in range(3):
            predicted = opened.experiment.predict(params, fit.x.float().reshape(-1, 1)).flatten()
            torch.testing.assert_close(fit.predictions[step].float(), predicted, rtol=1e-4, atol=1e-4)
            slopes = torch.func.grad(lambda p, x=x, y=y: (opened.experiment.predict(p, x) - y).square().mean())(params)
            params = {key: value - 0.01 * slopes[key] for key, value in params.items()}
        tasks = sample_test_tasks(opened.experiment.family, seed=0, purpose="test", num_tasks=3, num_shots=4)
        (block,) = tasks.iter_blocks()
        truth = block.functions(fit.x.reshape(-1, 1))[0, index, :, 0]
        assert torch.equal(fit.truth, truth)
        assert torch.equal(fit.support_y, block.functions(block.points["support"].x)[0, index, :, 0])


def test_an_l1_learner_is_shown_in_mean_absolute_error(cli: Cli) -> None:
    opened = _opened(cli, config="lab-fixed-alpha")
    result = cli("eval", "--checkpoint", opened.checkpoint.run, "--tasks", "30", "--steps", "0", "--json")
    mae = json.loads(result.out)["results"][0]["steps"][0]["grid"]["mae"]["mean"]
    table = cli("eval", "--checkpoint", opened.checkpoint.run, "--tasks", "30", "--steps", "0").out
    assert "mean absolute error" in table and f"{mae:.4f} ±" in table
    assert "mean squared error" in cli("eval", "--checkpoint", _opened(cli).checkpoint.run, "--tasks", "9").out


def test_a_row_that_runs_away_is_shown_whole(cli: Cli, trained: str) -> None:
    arguments = ["eval", "--checkpoint", trained, "--tasks", "4", "--steps", "12", "--set", "tasks.amplitude=[80,90]"]
    out = cli(*arguments).out
    assert "…" not in out and max(map(len, out.splitlines())) <= 80
    assert any(" ± " in line and "e" in line.split(" ± ")[0].split()[-1] for line in out.splitlines()[4:17])


def test_curve_and_alpha_end_at_the_checkpoint_they_are_drawn_for(
    cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    from maml_cli.reporting import training_figures

    seen: list[Any] = []
    real = training_figures.curve_figure

    def look(traces: Any, **options: Any) -> Any:
        seen.append(([step for step, _ in traces.losses], [step for step, _ in traces.after]))
        return real(traces, **options)

    monkeypatch.setattr(training_figures, "curve_figure", look)
    for step in 8, 12:
        file = f"{trained}/checkpoints/step-{step:08d}.pt"
        assert cli("plot", "--checkpoint", file, "--kind", "curve").code == 0
    assert seen == [([5], [0, 4, 8]), ([5, 10, 12], [0, 4, 8, 12])]


def test_a_lone_checkpoint_is_drawn_as_far_as_it_can_be(cli: Cli, trained: str) -> None:
    Path("lone.pt").write_bytes((Path(trained) / "checkpoints" / "step-00000012.pt").read_bytes())
    result = cli("plot", "--checkpoint", "lone.pt", "--tasks", "5")
    assert result.code == 0 and result.out == "plots/fit.png\nplots/steps.png\n"
    assert result.err.splitlines() == [
        f"{kind}: not drawn: there is no metrics.jsonl around the checkpoint" for kind in ("curve", "alpha")
    ]


def test_numbers_beyond_reason_are_refused_before_anything_is_allocated(cli: Cli) -> None:
    for key in "tasks.num_support", "tasks.num_query", "outer.tasks_per_step", "outer.steps", "run.eval_tasks":
        result = cli("train", "-c", "smoke", "-s", f"{key}=100000000000000000000")
        assert result.code == 2 and f"{key} must be at most" in result.err


def test_an_alpha_beyond_float32_is_refused_there(cli: Cli) -> None:
    result = cli("train", "-c", "smoke", "-s", "inner.alpha.init=1e308")
    assert result.code == 2 and "inner.alpha.init must be at most 3e38" in result.err
    assert cli("config", "check", "smoke", "-s", "inner.alpha.init=1e308", "-s", "run.dtype=float64").code == 0


def test_a_config_may_come_through_a_pipe(cli: Cli, tmp_path: Path) -> None:
    done = shell("echo 'inner: {step: 1}' | maml config check /dev/stdin", tmp_path)
    assert done.returncode == 2 and "inner.step: unknown key" in done.stderr
    assert shell("echo 'inner: {steps: 1}' | maml config check /dev/stdin", tmp_path).returncode == 0


def test_hostile_configs_are_one_message(cli: Cli) -> None:
    Path("deep.yaml").write_text("model:\n  hidden: " + "[" * 1200 + "]" * 1200)
    assert cli("config", "check", "deep.yaml").err == "deep.yaml:1:1: nested too deeply to be a config\n"
    Path("many.yaml").write_text("".join(f"key{i}: 1\n" for i in range(300)))
    assert cli("config", "check", "many.yaml").err.endswith("... and 200 more\n")
    Path("escape.yaml").write_text('"\\e[31mX": 1\n')
    assert "\x1b" not in cli("config", "check", "escape.yaml").err
    assert "at most 16 items, has 17" in cli("config", "check", "smoke", "-s", f"model.hidden={[1] * 17}").err


def test_no_number_and_no_verdict_is_cut(cli: Cli, trained: str) -> None:
    assert "…" not in cli("eval", "--checkpoint", trained, "--tasks", "3", "--set", "tasks.amplitude=1e18").out
    out = cli("check", "--set", "inner.alpha.init=1e-300").out
    assert "…" not in out and [line.split()[0] for line in out.splitlines()[1:-1]].count("ok") == NUM_CHECKS
