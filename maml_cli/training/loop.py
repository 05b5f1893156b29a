"""Training: the outer loop, what it logs and saves, and how it goes on after a stop."""

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from maml_cli import __version__
from maml_cli.config import Config, to_dict
from maml_cli.core import MetaParams
from maml_cli.engines import Engine, OuterOptimizer, StepResult, TrainState, make_engine, make_outer_optimizer
from maml_cli.errors import CheckpointError, DivergedError
from maml_cli.evaluation import finite_or_none, learner_errors, sample_test_tasks, summarise_tasks
from maml_cli.experiment import Experiment
from maml_cli.runs import append_line, save_checkpoint
from maml_cli.tasks import make_generator

TARGET_SECONDS_PER_CALL = 0.1
MAX_STEPS_PER_CALL = 1000


class TrainResult(NamedTuple):
    """How a training ended: its newest checkpoint, the steps and seconds of this process, and why it stopped.

    `diverged` has the outer step at which runs stopped while others went on, by their seeds.
    """

    checkpoint: Path
    step: int
    steps_done: int
    seconds: float
    interrupted: bool
    diverged: dict[int, int]


def train(
    config: Config,
    experiment: Experiment,
    state: TrainState,
    run: Path,
    *,
    advance: Engine | None = None,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    interrupted: Callable[[], bool] = lambda: False,
) -> TrainResult:
    """Train `state` to the end of `config` and keep metrics and checkpoints in `run`; mutates `state`.

    `advance` takes the outer steps, by default those of the eager engine. After every few of them, which take some
    tenth of a second, `on_step(step, loss)` is called, and `interrupted()` asked whether to save and stop. Raises
    DivergedError before an update with anything that is not finite.
    """
    outer, first_step = config.outer, state.step
    advance = advance or make_engine("eager", config, experiment)
    started = time.perf_counter()
    pace = Pace()
    file = run / "checkpoints" / f"step-{state.step:08d}.pt"
    if state.step == 0 and not file.exists():
        _log_evaluation(config, experiment, state, run)
        file = save_checkpoint(run, 0, snapshot(config, state))
    while state.step < outer.steps and not interrupted():
        try:
            count = pace.count(most=_until_next(config, state.step))
            with pace.timed(count):
                outcome = advance(state, count)
        except DivergedError as error:
            message = f"{error}\n{_advice(config)}\nthe last good checkpoint is {file}"
            raise DivergedError(message, outer_step=error.outer_step, cause=error.cause) from None
        step = state.step
        last = step == outer.steps
        if last or step % config.run.log_every == 0:
            _log_step(
                config, experiment, state, outcome, run, seconds=time.perf_counter() - started, steps=step - first_step
            )
        if config.run.eval_every and (last or step % config.run.eval_every == 0):
            _log_evaluation(config, experiment, state, run)
        if last or step % config.run.checkpoint_every == 0:
            file = save_checkpoint(run, step, snapshot(config, state))
        on_step(step, outcome.loss[state.diverged == 0].mean().item())
    stopped = state.step < outer.steps
    if stopped:
        file = save_checkpoint(run, state.step, snapshot(config, state))
    stopped_runs = {seed: at for seed, at in zip(config.seeds, state.diverged.tolist(), strict=True) if at}
    return TrainResult(
        file, state.step, state.step - first_step, time.perf_counter() - started, stopped, diverged=stopped_runs
    )


class Pace:
    """How many outer steps to take at a time: as many as take some tenth of a second, from what the last ones took."""

    seconds_per_step = 1.0  # not known yet: one step

    def count(self, *, most: int) -> int:
        return max(1, min(most, MAX_STEPS_PER_CALL, int(TARGET_SECONDS_PER_CALL / self.seconds_per_step)))

    @contextlib.contextmanager
    def timed(self, count: int) -> Iterator[None]:
        before = time.perf_counter()
        yield
        self.seconds_per_step = (time.perf_counter() - before) / count


def _until_next(config: Config, step: int) -> int:
    """How many outer steps it is to the next line of the log, evaluation or checkpoint."""
    run = config.run
    every = [run.log_every, run.checkpoint_every, *([run.eval_every] if run.eval_every else [])]
    return min(config.outer.steps - step, *(each - step % each for each in every))


def init_state(config: Config, experiment: Experiment) -> TrainState:
    """The state before the first outer step."""
    seeds = config.seeds
    meta = experiment.init_meta_params(seeds)
    streams = [make_generator(seed, "tasks") for seed in seeds]
    none = torch.zeros(len(seeds), dtype=torch.int64)
    noise = [make_generator(seed, "noise") for seed in seeds] if config.outer.weight_noise else []
    optimizers = _optimizers(config, experiment, meta)
    return TrainState(meta, optimizers, streams, 0, none.double(), none.clone(), none.clone(), noise)


def snapshot(config: Config, state: TrainState) -> dict[str, Any]:
    """All that a checkpoint holds: enough to evaluate, and to go on as if nothing had happened."""
    return {
        "step": state.step,
        "config": to_dict(config),
        "meta_params": state.meta_params._asdict(),
        "optimizers": {name: learned.optimizer.state_dict() for name, learned in state.optimizers.items()},
        "generators": [stream.get_state() for stream in state.generators],
        "noise_generators": [stream.get_state() for stream in state.noise_generators],
        "loss_sum": state.loss_sum,
        "skipped_tasks": state.skipped_tasks,
        "diverged": state.diverged,
        "versions": {"maml": __version__, "torch": torch.__version__},
    }


def restore_state(config: Config, experiment: Experiment, contents: dict[str, Any]) -> TrainState:
    """The state that `snapshot` described; raises CheckpointError if it does not fit `config`."""
    if not {"optimizers", "generators"} <= contents.keys():
        raise CheckpointError("kept to be evaluated: it has no optimiser state, so that training cannot go on from it")
    meta = experiment.load_meta_params(contents["meta_params"])
    optimizers = _optimizers(config, experiment, meta)
    try:
        for name, learned in optimizers.items():
            learned.optimizer.load_state_dict(contents["optimizers"][name])
        streams, noise = (_generators(contents.get(name, [])) for name in ("generators", "noise_generators"))
        sums = [contents[name].clone() for name in ("loss_sum", "skipped_tasks")]
        diverged = contents.get("diverged", torch.zeros_like(sums[1])).clone()
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"its optimiser or generator state does not fit its config: {error}") from None
    return TrainState(meta, optimizers, streams, contents["step"], sums[0], sums[1], diverged, noise)


def _generators(states: list[torch.Tensor]) -> list[torch.Generator]:
    streams = [torch.Generator() for _ in states]
    for stream, saved in zip(streams, states, strict=True):
        stream.set_state(saved)
    return streams


def _optimizers(config: Config, experiment: Experiment, meta: MetaParams) -> dict[str, OuterOptimizer]:
    outer, alpha = config.outer, config.inner.alpha
    leaves = {"params": [*meta.params.values()]}
    leaves |= {name: [meta.rule_params[key] for key in keys] for name, keys in experiment.learned_keys.items() if keys}
    choices = dict.fromkeys(leaves, (outer.optimizer, outer.lr))
    if "alpha" in leaves:
        choices["alpha"] = (alpha.optimizer or outer.optimizer, alpha.lr or outer.lr)
    return {name: make_outer_optimizer(kind, leaves[name], lr) for name, (kind, lr) in choices.items()}


def _log_step(
    config: Config,
    experiment: Experiment,
    state: TrainState,
    outcome: StepResult,
    run: Path,
    *,
    seconds: float,
    steps: int,
) -> None:
    since = (state.step - 1) % config.run.log_every + 1
    record: dict[str, Any] = {
        "step": state.step,
        "loss": _per_run(state, (state.loss_sum / since).tolist()),
        "grad_norm": _per_run(state, outcome.grad_norm.tolist()),
    }
    if config.outer.clip_task_norm is not None:
        record["skipped_tasks"] = _per_run(state, state.skipped_tasks.tolist())
    if config.inner.alpha.learned:
        slopes = {key: outcome.gradients.rule_params[key] for key in experiment.learned_keys["alpha"]}
        for name, values in {"alpha": experiment.alphas(state.meta_params.rule_params), "alpha_grad": slopes}.items():
            record[name] = {key: _per_run(state, value.mean(dim=(-2, -1)).tolist()) for key, value in values.items()}
    append_line(run / "metrics.jsonl", record)
    rate = steps / seconds
    append_line(run / "timing.jsonl", {"step": state.step, "seconds": seconds, "outer_steps_per_second": rate})
    state.loss_sum.zero_()
    state.skipped_tasks.zero_()


def _per_run(state: TrainState, values: Sequence[Any]) -> Any:
    """The value of the one run; of several, a list with null for those that diverged."""
    kept = [None if stopped else value for value, stopped in zip(values, state.diverged.tolist(), strict=True)]
    return kept[0] if len(kept) == 1 else kept


def _log_evaluation(config: Config, experiment: Experiment, state: TrainState, run: Path) -> None:
    """Errors on validation tasks, which are neither those of training nor those of `maml eval`."""
    if not config.run.eval_every:
        return
    shots = config.tasks.num_support
    bank = sample_test_tasks(
        experiment.family,
        seed=config.seeds,
        purpose="validation",
        num_tasks=config.run.eval_tasks,
        num_shots=shots,
    )
    errors = learner_errors(experiment, state.meta_params, bank, steps=config.inner.steps)
    found = [[summarise_tasks(step, run=place) for step in errors] for place in range(len(config.seeds))]
    record: dict[str, Any] = {"shots": shots, "num_tasks": config.run.eval_tasks}
    for name in ("grid", "query"):
        for measure in ("mse", "mae"):
            values = [[getattr(getattr(step, name), measure).mean for step in steps] for steps in found]
            record[f"{name}_{measure}"] = _per_run(
                state, [[finite_or_none(value) for value in steps] for steps in values]
            )
    append_line(run / "metrics.jsonl", {"step": state.step, "eval": record})


def _advice(config: Config) -> str:
    alpha, lr, clip = config.inner.alpha.init, config.outer.lr, config.outer.clip_norm
    clipping = "clipping" if clip is None else "stronger clipping"
    return (
        f"try a lower alpha (--set inner.alpha.init={alpha / 10:g}), a lower outer rate (--set outer.lr={lr / 10:g}) "
        f"or {clipping} (--set outer.clip_norm={1 if clip is None else clip / 10:g})"
    )
