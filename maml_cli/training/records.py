"""The records of metrics.jsonl, made from the training state."""

import itertools
import math
from collections.abc import Sequence
from typing import Any, TypeVar

from torch import Tensor

from maml_cli.config import Config
from maml_cli.engines import StepResult, TrainState, evaluations_in_training
from maml_cli.evaluation import OnTasks, ignore_tasks, learner_errors, sample_validation_tasks, summarise_tasks
from maml_cli.experiment import Experiment
from maml_cli.runs import EvaluationRecord, LossRecord

R = TypeVar("R", LossRecord, EvaluationRecord)


def loss_record(config: Config, experiment: Experiment, state: TrainState, result: StepResult) -> LossRecord:
    """The losses since the previous record, with `result` of the last outer step."""
    steps_since_log = (state.step - 1) % config.run.log_every + 1
    alpha: dict[str, list[list[float]]] = {}
    alpha_grad: dict[str, list[list[float]]] = {}
    if config.inner.alpha.learned:
        gradients = result.gradients.rule_params
        alpha = {
            key: _by_inner_step(value, state) for key, value in experiment.alphas(state.meta_params.rule_params).items()
        }
        alpha_grad = {key: _by_inner_step(gradients[key], state) for key in experiment.learned_keys["alpha"]}
    clips_tasks = config.outer.clip_task_norm is not None
    return LossRecord(
        state.step,
        loss=_by_run(state.loss_sum / steps_since_log, state),
        grad_norm=_by_run(result.grad_norm, state),
        skipped_tasks=_by_run(state.skipped_tasks, state) if clips_tasks else None,
        alpha=alpha,
        alpha_grad=alpha_grad,
    )


def evaluation_record(
    config: Config, experiment: Experiment, state: TrainState, *, on_tasks: OnTasks = ignore_tasks
) -> EvaluationRecord:
    """Errors at the largest K on validation tasks, which neither training nor `maml eval` uses.

    `on_tasks` may raise to stop.
    """
    shots, num_tasks = config.tasks.max_support, config.run.eval_tasks
    tasks = sample_validation_tasks(experiment.family, config.seeds, num_tasks=num_tasks, num_shots=shots)
    errors = learner_errors(
        experiment,
        state.meta_params,
        tasks,
        steps=config.inner.steps,
        num_evaluations=evaluations_in_training(config),
        on_tasks=on_tasks,
    )

    by_run = [[summarise_tasks(step, run=index) for step in errors] for index in range(len(config.seeds))]

    def means(points: str, measure: str) -> list[list[float]]:
        return _nan_where_diverged(
            [[getattr(getattr(step, points), measure).mean for step in steps] for steps in by_run], state
        )

    return EvaluationRecord(
        state.step,
        shots,
        num_tasks,
        grid_mse=means("grid", "mse"),
        grid_mae=means("grid", "mae"),
        query_mse=means("query", "mse"),
        query_mae=means("query", "mae"),
    )


def concat_records(records: Sequence[R]) -> R:
    """The record of all runs, from records of some runs each: values by run are joined, others are equal in all."""
    return type(records[0])(*map(_concat, zip(*records, strict=True)))


def _concat(values: Sequence[Any]) -> Any:
    if isinstance(values[0], list):
        return [*itertools.chain.from_iterable(values)]
    if isinstance(values[0], dict):
        return {key: _concat([value[key] for value in values]) for key in values[0]}
    return values[0]


def _by_run(values: Tensor, state: TrainState) -> list[float]:
    """The value of each run, (R,); NaN for runs that diverged."""
    return [value for (value,) in _nan_where_diverged(values.unsqueeze(1).tolist(), state)]


def _by_inner_step(alphas: Tensor, state: TrainState) -> list[list[float]]:
    """Means over the elements of alphas (R, S, in, out), as (R, S); NaN for runs that diverged."""
    means = alphas.mean(dim=(-2, -1)).nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    return _nan_where_diverged(means.tolist(), state)


def _nan_where_diverged(rows: list[list[float]], state: TrainState) -> list[list[float]]:
    """The row of each run, with NaN in place of the numbers of runs that diverged."""
    return [
        [math.nan] * len(row) if diverged else row for row, diverged in zip(rows, state.diverged.tolist(), strict=True)
    ]
