"""The records of metrics.jsonl, made from the training state."""

import math

from torch import Tensor

from maml_cli.config import Config
from maml_cli.engines import StepResult, TrainState
from maml_cli.evaluation import learner_errors, sample_validation_tasks, summarise_tasks
from maml_cli.experiment import Experiment
from maml_cli.runs import EvaluationRecord, LossRecord


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


def evaluation_record(config: Config, experiment: Experiment, state: TrainState) -> EvaluationRecord:
    """Errors on validation tasks, which neither training nor `maml eval` uses."""
    shots, num_tasks = config.tasks.num_support, config.run.eval_tasks
    tasks = sample_validation_tasks(experiment.family, config.seeds, num_tasks=num_tasks, num_shots=shots)
    errors = learner_errors(experiment, state.meta_params, tasks, steps=config.inner.steps)

    def by_run(points: str, measure: str) -> list[list[float]]:
        means = [
            [getattr(getattr(summary, points), measure).mean for summary in summaries] for summaries in summaries_by_run
        ]
        return [
            [math.nan] * len(errors) if diverged else values
            for values, diverged in zip(means, state.diverged.tolist(), strict=True)
        ]

    summaries_by_run = [[summarise_tasks(step, run=index) for step in errors] for index in range(len(config.seeds))]
    return EvaluationRecord(
        state.step,
        shots,
        num_tasks,
        grid_mse=by_run("grid", "mse"),
        grid_mae=by_run("grid", "mae"),
        query_mse=by_run("query", "mse"),
        query_mae=by_run("query", "mae"),
    )


def _by_run(values: Tensor, state: TrainState) -> list[float]:
    """The value of each run, (R,); NaN for runs that diverged."""
    return [
        math.nan if diverged else value
        for value, diverged in zip(values.tolist(), state.diverged.tolist(), strict=True)
    ]


def _by_inner_step(alphas: Tensor, state: TrainState) -> list[list[float]]:
    """Means over the elements of alphas (R, S, in, out), as (R, S); NaN for runs that diverged."""
    means = alphas.mean(dim=(-2, -1)).nan_to_num(nan=math.inf, posinf=math.inf, neginf=-math.inf)
    return [
        [math.nan] * len(values) if diverged else values
        for values, diverged in zip(means.tolist(), state.diverged.tolist(), strict=True)
    ]
