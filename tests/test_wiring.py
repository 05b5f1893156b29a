"""What a config says reaches the place where it acts: each key, moved, changes exactly what it should."""

import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.config import Config
from maml_cli.core import MetaParams, expand_to_tasks
from maml_cli.evaluation import Protocol, evaluate_run, fit_tasks, open_run, sample_test_tasks, summarise_tasks
from maml_cli.evaluation.evaluate import adapted_errors
from maml_cli.experiment import build_experiment
from maml_cli.runs import checkpoint, directory, files, read_lines
from maml_cli.tasks import SineFamily, make_generator
from maml_cli.training import init_state, session
from maml_cli.training import loop as training
from maml_cli.training.loop import train
from maml_cli.training.signals import catch_stop
from tests.conftest import NUM_CHECKS, Cli, Tiny

ROOT = Path(__file__).parent.parent


def _config(**sections: dict[str, Any]) -> Config:
    base: dict[str, dict[str, Any]] = {
        "model": {"hidden": [4], "activation": "tanh"},
        "outer": {"steps": 6, "tasks_per_step": 3},
        "run": {"dtype": "float64", "device": "cpu", "log_every": 1, "eval_every": 3, "eval_tasks": 4},
    }
    return Config.model_validate({k: base.get(k, {}) | sections.get(k, {}) for k in {*base, *sections}})


def _train(config: Config, run: Path) -> tuple[MetaParams, list[dict[str, Any]]]:
    directory.create_run(run, name="x", config=config)
    experiment = build_experiment(config)
    state = init_state(config, experiment)
    train(config, experiment, state, run)
    return state.meta_params, read_lines(run / "metrics.jsonl")


def test_the_family_is_that_of_the_config() -> None:
    tasks = {"amplitude": [1, 2], "frequency": [3, 4], "phase": [5, 6], "offset": [7, 8], "x": [9, 10], "noise": 0.5}
    expected = SineFamily((1.0, 2.0), (3.0, 4.0), (5.0, 6.0), (7.0, 8.0), (9.0, 10.0), 0.5)
    experiment = build_experiment(
        _config(tasks=tasks | {"num_support": 2, "num_query": 3}, outer={"tasks_per_step": 4})
    )
    assert experiment.family == expected
    batch = experiment.sample([make_generator(0, "x")])
    assert batch.support.x.shape == (1, 4, 2, 1) and batch.query.x.shape == (1, 4, 3, 1)
    assert batch.support.x.dtype == torch.float64


@pytest.mark.parametrize(("name", "zero_bias", "limit"), [("uniform", True, 1.0), ("torch", False, 1.0)])
def test_the_initialisation_is_that_of_the_config(name: str, zero_bias: bool, limit: float) -> None:
    params = build_experiment(_config(model={"hidden": [2000], "init": name})).init_meta_params([0]).params
    assert params["hidden0.w"].abs().max() <= limit and params["hidden0.w"].std().item() == pytest.approx(
        0.577, abs=0.02
    )
    assert bool(params["hidden0.b"].any()) != zero_bias


@pytest.mark.parametrize(
    ("loss", "formula"),
    [
        ("mse", lambda e: (e**2).mean()),
        ("l1", lambda e: e.abs().mean()),
        ("huber", lambda e: torch.where(e.abs() < 1, e**2 / 2, e.abs() - 0.5).mean()),
    ],
)
def test_the_loss_is_that_of_the_config_inside_and_outside(loss: str, formula: Any) -> None:
    """One inner step of 0.1 by hand, with torch.autograd, for each task; then the loss of its query points."""
    experiment = build_experiment(_config(inner={"loss": loss, "alpha": {"init": 0.1}}))
    meta = experiment.init_meta_params([0])
    batch = experiment.sample([make_generator(0, "x")])

    def error(params: list[torch.Tensor], x: torch.Tensor, y: torch.Tensor) -> Any:
        return formula(torch.tanh(x @ params[0] + params[1]) @ params[2] + params[3] - y)

    expected = []
    for task in range(3):
        theta = [value[0].clone().requires_grad_() for value in meta.params.values()]
        slopes = torch.autograd.grad(error(theta, batch.support.x[0, task], batch.support.y[0, task]), theta)
        adapted = [value - 0.1 * slope for value, slope in zip(theta, slopes, strict=True)]
        expected.append(error(adapted, batch.query.x[0, task], batch.query.y[0, task]).item())
    found = experiment.algorithm.meta_gradient(meta, batch, 0)[0]
    assert found[0].tolist() == pytest.approx(expected, rel=1e-12)


def test_beyond_the_trained_steps_is_as_the_config_says() -> None:
    found = {}
    for beyond in "hold", "stop":
        alpha = {"per_step": True, "learned": True, "after_last_step": beyond}
        experiment = build_experiment(_config(inner={"steps": 2, "alpha": alpha}))
        meta = expand_to_tasks(experiment.init_meta_params([0]), 3)
        found[beyond] = list(experiment.algorithm.unroll(meta, experiment.sample([make_generator(0, "x")]).support, 3))
    assert torch.equal(found["stop"][3]["head.w"], found["stop"][2]["head.w"])
    assert torch.equal(found["hold"][2]["head.w"], found["stop"][2]["head.w"])
    assert not torch.equal(found["hold"][3]["head.w"], found["hold"][2]["head.w"])
    experiment = build_experiment(_config(inner={"steps": 2, "alpha": {"per_step": True, "learned": True}}))
    with pytest.raises(ValueError, match="no alpha for inner step 3: there are 2, and no rule for the rest"):
        list(experiment.algorithm.unroll(meta, experiment.sample([make_generator(0, "x")]).support, 3))


def test_more_steps_than_alphas_are_refused_unless_it_is_said_what_follows(cli: Cli) -> None:
    changes = ["inner.steps=2", "inner.alpha.per_step=true", "inner.alpha.learned=true"]
    run = cli("train", "-c", "smoke", *Tiny, "-q", *(word for change in changes for word in ("-s", change))).out.strip()
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


def test_gain_query_points_and_oracle_are_those_of_the_config() -> None:
    plain, other = build_experiment(_config()), build_experiment(_config(model={"init_gain": 0.5, "oracle": True}))
    for experiment, factor, inputs in ((plain, 1.0, 1), (other, 0.5, 4)):
        params = experiment.init_meta_params([0]).params
        assert params["hidden0.w"].shape == (1, inputs, 4) and experiment.sample(
            [make_generator(0, "x")]
        ).query.x.shape[-1] == (inputs)
        assert params["hidden0.w"].abs().max() <= 4 * factor / inputs**0.5
    halved = build_experiment(_config(model={"init_gain": 0.5})).init_meta_params([0]).params
    for key, value in plain.init_meta_params([0]).params.items():
        assert torch.equal(halved[key], value * (0.5 if key.endswith(".w") else 1.0))
    x = (
        build_experiment(_config(tasks={"query_sampling": "stratified", "num_query": 4}))
        .sample([make_generator(0, "x")])
        .query.x
    )
    assert torch.equal(((x + 5) / 2.5).floor().flatten(), torch.arange(4.0, dtype=torch.float64).repeat(3))


def test_weight_noise_acts_in_training(tmp_path: Path) -> None:
    """The tasks of the first step are the same; its loss, at parameters with noise, is not."""
    found = {}
    for noise in (0.0, 0.1):
        _, records = _train(_config(outer={"weight_noise": noise}), tmp_path / str(noise))
        found[noise] = next(record["loss"] for record in records if "loss" in record)
    assert found[0.0] != found[0.1] and found[0.1] == pytest.approx(found[0.0], rel=0.5)


@pytest.mark.parametrize("preset", ["oracle-10shot", "cavia-10shot", "reptile-10shot", "imaml-10shot", "best-5shot"])
def test_every_kind_of_learner_is_evaluated_and_drawn(cli: Cli, preset: str) -> None:
    run = cli("train", "-c", preset, "-s", "outer.steps=2", "-s", "run.log_every=1", "-s", "run.eval_tasks=2", "-q").out
    result = cli("eval", "--checkpoint", run.strip(), "--tasks", 4, "--json")
    assert result.code == 0, result.err
    assert json.loads(result.out)["results"][0]["steps"][0]["grid"]["mse"]["mean"] > 0
    drawn = cli("plot", "--checkpoint", run.strip(), "--tasks", 4)
    assert drawn.code == 0 and len(drawn.out.split()) == 4, drawn.err


def test_a_positive_alpha_is_logged_and_drawn_as_alpha_and_not_as_its_logarithm(tmp_path: Path) -> None:
    alpha = {"init": 0.05, "learned": True, "sign": "positive"}
    meta, records = _train(_config(inner={"alpha": alpha}), tmp_path / "run")
    logged = [record["alpha"]["alpha"][0] for record in records if "alpha" in record]
    assert logged[-1] == pytest.approx(meta.rule_params["alpha"].exp().item()) and 0.04 < logged[0] < 0.06


def test_the_schedule_and_the_clip_act_in_training(tmp_path: Path) -> None:
    """With SGD of rate 1 a step moves by the clipped norm times the schedule: (1 + cos(pi t / 6)) / 2 * 1e-3."""
    outer = {"optimizer": "sgd", "lr": 1.0, "clip_norm": 1e-3, "schedule": "cosine"}
    config = _config(outer=outer, run={"checkpoint_every": 1})
    _, records = _train(config, tmp_path / "run")
    assert min(record["grad_norm"] for record in records if "grad_norm" in record) > 1e-3

    def params(step: int) -> torch.Tensor:
        contents = checkpoint.decode((tmp_path / "run" / "checkpoints" / f"step-{step:08d}.pt").read_bytes())
        return torch.cat([value.flatten() for value in contents["meta_params"]["params"].values()])

    for step in range(6):
        scale = (1 + torch.cos(torch.tensor(torch.pi * step / 6))).item() / 2
        assert (params(step + 1) - params(step)).norm().item() == pytest.approx(1e-3 * scale, rel=1e-6)


@pytest.mark.parametrize(
    ("alpha", "movement"),
    [
        ({"optimizer": "adam", "lr": 1e-4}, lambda slope: -1e-4 * (1 if slope > 0 else -1)),
        ({"optimizer": "sgd", "lr": 1e-5}, lambda slope: -1e-5 * slope),
        ({}, lambda slope: -1e-3 * slope),
    ],
)
def test_alpha_has_its_own_optimiser_and_rate(alpha: dict[str, Any], movement: Any, tmp_path: Path) -> None:
    """Outside SGD of 1e-3. The first step of Adam is its rate, against the sign of the gradient."""
    config = _config(
        inner={"alpha": {"init": 0.05, "learned": True} | alpha},
        outer={"optimizer": "sgd", "lr": 1e-3, "steps": 1},
    )
    meta, records = _train(config, tmp_path / "run")
    logged = next(record for record in records if "alpha" in record)
    assert logged["alpha"]["alpha"] == [meta.rule_params["alpha"].item()]
    slope = logged["alpha_grad"]["alpha"][0]
    assert meta.rule_params["alpha"].item() - 0.05 == pytest.approx(movement(slope), rel=1e-6)


def test_logged_validation_errors_are_those_on_the_validation_tasks(tmp_path: Path) -> None:
    config = _config(run={"seed": 4})
    meta, records = _train(config, tmp_path / "run")
    experiment = build_experiment(config)
    tasks = sample_test_tasks(experiment.family, seed=4, purpose="validation", num_tasks=4, num_shots=10)
    errors = adapted_errors(experiment, tasks, lambda count: expand_to_tasks(meta, count), num_runs=1, steps=1)
    found = records[-1]["eval"]
    assert records[-1]["step"] == 6 and found["shots"] == 10 and found["num_tasks"] == 4
    for name in "grid", "query":
        for measure in "mse", "mae":
            expected = [getattr(getattr(summarise_tasks(step), name), measure).mean for step in errors]
            assert found[f"{name}_{measure}"] == pytest.approx(expected, rel=1e-12)


def _opened(cli: Cli, *options: str, config: str = "smoke") -> Any:
    run = cli("train", "-c", config, *Tiny, "-q", *options).out.strip()
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


def test_resuming_from_an_older_checkpoint_makes_it_the_newest_at_once(
    cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if killed right after: nothing claims the later steps whose log is gone."""
    expected = (Path(trained) / "metrics.jsonl").read_bytes()

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(session, "train", killed)
        assert cli("train", "--resume", f"{trained}/checkpoints/step-00000004.pt", "-q").code == 130
    assert directory.open_checkpoint(Path(trained)).step == 4
    assert cli("train", "--resume", trained, "-q").code == 0
    assert (Path(trained) / "metrics.jsonl").read_bytes() == expected
    assert directory.open_checkpoint(Path(trained)).step == 12


def test_resuming_a_renamed_checkpoint_leaves_step_0_alone(cli: Cli, trained: str) -> None:
    saved = Path(trained) / "checkpoints"
    before = (saved / "step-00000000.pt").read_bytes()
    (saved / "step-00000008.pt").rename(saved / "mine.pt")
    assert cli("train", "--resume", saved / "mine.pt", "-q").code == 0
    assert (saved / "step-00000000.pt").read_bytes() == before
    steps = [record["step"] for record in read_lines(Path(trained) / "metrics.jsonl") if "eval" in record]
    assert steps == [0, 4, 8, 12]


def test_a_run_in_training_is_not_resumed_by_another(cli: Cli, trained: str) -> None:
    with directory.training_lock(Path(trained)):
        result = cli("train", "--resume", trained, "-q")
    assert result.code == 3 and result.err == f"{trained}: another process is training this run\n"


def test_the_newest_digest_is_in_last_json_too(cli: Cli, trained: str) -> None:
    saved = Path(trained) / "checkpoints"
    (saved / "SHA256SUMS").unlink()
    other = checkpoint.decode((saved / "step-00000012.pt").read_bytes())
    (saved / "step-00000012.pt").write_bytes(checkpoint.encode(other | {"loss_sum": torch.ones(1)}))
    result = cli("eval", "--checkpoint", trained)
    assert result.code == 4 and "its SHA-256 is not the one that was written down" in result.err


def test_files_are_on_disk_before_they_are_named_and_their_directory_after(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(descriptor: int) -> None:
        calls.append("sync directory" if stat.S_ISDIR(os.fstat(descriptor).st_mode) else "sync file")
        fsync(descriptor)

    def noted_replace(source: Path, target: Path) -> None:
        calls.append("replace")
        replace(source, target)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    files.write_atomic(tmp_path / "x", b"new")
    assert calls == ["sync file", "replace", "sync directory"]

    def failing(source: Path, target: Path) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(os, "replace", failing)
    with pytest.raises(OSError, match="Input/output"):
        files.write_atomic(tmp_path / "x", b"newer")
    assert (tmp_path / "x").read_bytes() == b"new" and len(list(tmp_path.iterdir())) == 1


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


def test_training_runs_with_the_threads_of_the_config(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    real = training.train

    def look(*arguments: Any, **options: Any) -> Any:
        seen.append(torch.get_num_threads())
        return real(*arguments, **options)

    monkeypatch.setattr(session, "train", look)
    for threads in 2, 1:
        cli("train", "-c", "smoke", *Tiny, "-q", "-s", f"run.threads={threads}")
    assert seen == [2, 1]


def test_a_signal_again_interrupts_at_once_but_not_while_it_saves(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.getsignal(signal.SIGINT)
    with catch_stop() as stop:
        assert not stop()
        signal.raise_signal(signal.SIGTERM)
        signal.raise_signal(signal.SIGINT)
        assert stop() and stop.exit_code == 143
    monkeypatch.setattr("maml_cli.training.signals.SECONDS_TO_SAVE", 0.0)
    with pytest.raises(KeyboardInterrupt), catch_stop():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def test_a_stop_without_a_save_says_so(cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def impatient(*args: object, **kwargs: object) -> None:
        signal.raise_signal(signal.SIGTERM)
        raise KeyboardInterrupt

    monkeypatch.setattr(session, "train", impatient)
    result = cli("train", "--resume", trained, "-q")
    assert result.code == 143
    advice = f"go on from its newest checkpoint with: maml train --resume {trained}"
    assert result.err == f"stopped before it could save; {advice}\n"


def test_resume_auto_takes_the_newest_of_several(cli: Cli) -> None:
    options = ["-c", "smoke", *Tiny, "-q", "-s", "run.checkpoint_every=4"]
    for number in range(2):
        run = Path(cli("train", *options).out.strip())
        (run / "checkpoints" / "step-00000012.pt").unlink()
        os.utime(run / "last.json", (1000 - number, 1000 - number))
    assert cli("train", *options, "--resume", "auto").out == "outputs/smoke\n"


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


def test_a_run_that_died_before_its_first_checkpoint_starts_over(cli: Cli, trained: str) -> None:
    expected = {name: (Path(trained) / name).read_bytes() for name in ("metrics.jsonl", "last.json")}
    for file in [*(Path(trained) / "checkpoints").iterdir(), Path(trained) / "last.json"]:
        file.unlink()
    result = cli("train", "--resume", trained)
    assert result.code == 0 and "goes on from step 0" in result.err
    assert {name: (Path(trained) / name).read_bytes() for name in expected} == expected


def test_another_device_for_the_rest_of_a_run_is_not_another_config(cli: Cli) -> None:
    options = ["-c", "quickstart", *Tiny, "-q", "-s", "run.checkpoint_every=4"]
    whole, run = (Path(cli("train", *options).out.strip()) for _ in range(2))
    for step, later in ((4, (8, 12)), (8, (12,))):
        for number in later:
            (run / "checkpoints" / f"step-{number:08d}.pt").unlink(missing_ok=True)
        result = cli("train", "--resume", run / "checkpoints" / f"step-{step:08d}.pt", "--device", "cpu", "-q")
        assert result.code == 0, result.err
    assert cli("train", "--resume", run, "-q").code == 0
    for name in "last.json", "config.yaml", "metrics.jsonl", "checkpoints/step-00000012.pt":
        assert (run / name).read_bytes() == (whole / name).read_bytes()


def test_resume_takes_a_run_as_it_began(cli: Cli, trained: str) -> None:
    written = Path(trained) / "config.yaml"
    text = written.read_text()
    for changed in text.replace("steps: 12", "steps: 13"), "\0", "x: [":
        written.write_text(changed)
        result = cli("train", "--resume", trained, "-q")
        assert result.code == 2 and "not the config of its checkpoints" in result.err
    written.unlink()
    assert cli("train", "--resume", trained, "-q").code == 0 and written.read_text() == text


def test_lines_that_are_missing_from_the_log_are_said_to_be(cli: Cli, trained: str) -> None:
    metrics = Path(trained) / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:1]) + "{}\nfoo\n[1]\n")
    assert cli("plot", "--checkpoint", trained, "--kind", "curve").code == 0
    result = cli("train", "--resume", trained, "-q")
    assert result.code == 0
    assert result.err == f"{metrics}: 2 lines from before step 12 are missing, and stay so\n"


def test_a_newest_checkpoint_that_is_gone_is_noted(cli: Cli, trained: str) -> None:
    (Path(trained) / "checkpoints" / "step-00000012.pt").unlink()
    note = f"{trained}/checkpoints/step-00000012.pt is missing: taking step-00000008.pt, the newest there is"
    assert note in cli("eval", "--checkpoint", trained, "--tasks", "3").err
    assert note in cli("plot", "--checkpoint", trained, "--kind", "fit").err
    assert note in cli("train", "--resume", trained, "-q").err
    (Path(trained) / "last.json").write_text("[1]")
    assert "last.json cannot be read: taking step-00000012.pt" in cli("eval", "--checkpoint", trained).err


def test_resume_auto_with_out_can_be_repeated(cli: Cli) -> None:
    options = ["-c", "smoke", *Tiny, "-q", "--resume", "auto", "--out", "job"]
    for _ in range(3):
        result = cli("train", *options)
        assert (result.code, result.out) == (0, "job\n")
    assert cli("train", *options, "-s", "run.seed=1").code == 3


def test_a_dry_run_names_what_would_be_made_and_refuses_what_would_be(cli: Cli, trained: str) -> None:
    assert cli("train", "-c", "smoke", "--dry-run").out.startswith("outputs/smoke-2: nothing written")
    assert cli("train", "-c", "smoke", "--dry-run", "--out", trained).code == 3
    found = json.loads(cli("train", "-c", "smoke", "--dry-run", "--json").out)
    assert found["run"] == "outputs/smoke-2" and found["config"]["outer"]["steps"] == 200
    assert not Path("outputs/smoke-2").exists()


def test_more_than_the_memory_of_the_machine_is_refused(cli: Cli) -> None:
    result = cli("train", "-c", "smoke", "-s", "outer.tasks_per_step=1000000", "-s", "tasks.num_support=100000")
    assert result.code == 2 and "GiB, this machine has" in result.err and not Path("outputs").exists()


def test_an_alpha_beyond_float32_is_refused_there(cli: Cli) -> None:
    result = cli("train", "-c", "smoke", "-s", "inner.alpha.init=1e308")
    assert result.code == 2 and "inner.alpha.init must be at most 3e38" in result.err
    assert cli("config", "check", "smoke", "-s", "inner.alpha.init=1e308", "-s", "run.dtype=float64").code == 0


def _shell(command: str, where: Path) -> "subprocess.CompletedProcess[str]":
    maml = f"{sys.executable} -m maml_cli"
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    script = f"set -o pipefail; {command.replace('maml', maml)}"
    return subprocess.run(
        ["bash", "-c", script], cwd=where, env=environment, capture_output=True, text=True, check=False
    )


def test_nobody_reading_stops_no_training_and_is_no_failure(cli: Cli, trained: str, tmp_path: Path) -> None:
    options = "-c smoke -s outer.steps=12 -s run.eval_tasks=4"
    for redirection in "2>&-", "2>/dev/full":
        done = _shell(f"maml train {options} {redirection}", tmp_path)
        assert done.returncode == 0 and done.stdout.startswith("outputs/smoke-") and done.stdout.count("\n") == 1
    done = _shell(f"maml eval --checkpoint {trained} | head -1", tmp_path)
    assert done.returncode in (0, 141) and "Traceback" not in done.stderr


def test_a_config_may_come_through_a_pipe(cli: Cli, tmp_path: Path) -> None:
    done = _shell("echo 'inner: {step: 1}' | maml config check /dev/stdin", tmp_path)
    assert done.returncode == 2 and "inner.step: unknown key" in done.stderr
    assert _shell("echo 'inner: {steps: 1}' | maml config check /dev/stdin", tmp_path).returncode == 0


def test_hostile_configs_are_one_message(cli: Cli) -> None:
    Path("deep.yaml").write_text("model:\n  hidden: " + "[" * 3000 + "]" * 3000)
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
