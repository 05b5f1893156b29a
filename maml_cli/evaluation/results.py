"""Results of evaluations as plain values: documents for JSON, and rows for tables."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

from maml_cli.documents import evaluations, to_plain
from maml_cli.errors import DataError
from maml_cli.evaluation.calibration import Calibration
from maml_cli.evaluation.ensemble import EnsembleErrors
from maml_cli.evaluation.evaluate import Evaluation, KindErrors
from maml_cli.evaluation.statistics import Errors, PointErrors, Statistic
from maml_cli.evaluation.task_rows import TaskErrors, iter_task_rows


class EvaluationResult(NamedTuple):
    """The evaluations of one trained run.

    checkpoint: path of the checkpoint file.
    step: outer steps that it has taken.
    overrides: changes of its config, such as `tasks.phase=[0,1]`.
    results: one evaluation for each K.
    """

    checkpoint: str
    step: int
    overrides: tuple[str, ...]
    results: tuple[Evaluation, ...]

    def to_document(self) -> evaluations.EvalDocument:
        """The document of `maml eval --json`."""
        return evaluations.EvalDocument(
            checkpoint=self.checkpoint,
            step=self.step,
            overrides=list(self.overrides),
            results=[_evaluation(evaluation) for evaluation in self.results],
        )

    def to_dict(self) -> dict[str, Any]:
        """The contents of `maml eval --json`: dictionaries, lists, strings, and numbers, which may be infinite."""
        plain: dict[str, Any] = to_plain(self.to_document())
        return plain

    def to_rows(self) -> list[dict[str, Any]]:
        """A row for each K, predictor, inner step, set of points and measure, as `pandas.DataFrame` takes them.

        shots: K.
        predictor: `learner`, `random_init` or the name of a baseline.
        seed: of training; None for the mean over seeds, and for predictors without one.
        inner_step: from 0; None for predictors that do not adapt.
        points: `grid`, `query` or `support`.
        measure: `mse` or `mae`; on the grid also `nll`, `coverage_95` and `coverage_50` of a predictive distribution.
        mean, ci95, median: as in Statistic.
        percentile_90, worst and others: as in Tail.

        For a mixture there are rows of each kind of tasks too, with `kind`, its label; None for rows of all tasks.
        """
        return [
            {"shots": evaluation.shots, "predictor": predictor, "seed": seed, "inner_step": step, "points": points}
            | ({"kind": kind} if evaluation.by_kind else {})
            | {"measure": measure, "mean": value.mean, "ci95": value.ci95, "median": value.median}
            | (value.tail._asdict() if value.tail else {})
            for evaluation in self.results
            for kind, predictor, seed, step, points, measure, value in _statistics(evaluation)
        ]

    def per_task(self) -> list[dict[str, Any]]:
        """A row for each K and test task: its index, its parameters, and its error on the grid after each inner step.

        task: index of the task, from 0.
        amplitude, phase and others: what describes a task of the family; None where it does not apply, such as the
            slope of a sinusoid in a mixture, of which `kind` is the component.
        shots: K.
        mse_step_0, mse_step_1, ...: errors, `mae_step_0` and so on of a run trained on L1; with several seeds, means
            over them.
        nll_step_0, nll_step_1, ...: negative log-likelihoods per point, of a run with a predictive distribution.

        Raises DataError unless the evaluation has kept them: `maml.evaluate(run, per_task=True)`.
        """
        return [row for evaluation in self.results for row in iter_task_rows(_errors_of_tasks(evaluation))]


def by_step(steps: Sequence[PointErrors] | Sequence[EnsembleErrors] | Sequence[Calibration]) -> list[dict[str, Any]]:
    """The errors, or the calibration, after inner steps 0, 1, ... as dictionaries."""
    return [{"step": step, **plain(errors)} for step, errors in enumerate(steps)]


def plain(value: Any) -> Any:
    """NamedTuples within NamedTuples as dictionaries; the tail of a statistic is among its own fields."""
    if isinstance(value, Statistic):
        statistic = value._asdict()
        tail = statistic.pop("tail")
        return statistic | (tail._asdict() if tail else {})
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    return value


def _evaluation(evaluation: Evaluation) -> evaluations.Evaluation:
    fields = {
        "shots": evaluation.shots,
        "num_tasks": evaluation.num_tasks,
        "seed": evaluation.seed,
        "trained_steps": evaluation.trained_steps,
        "noisy_targets": evaluation.noisy_targets,
        "steps": by_step(evaluation.steps),
        "by_seed": [{"seed": seed, "steps": by_step(steps)} for seed, steps in evaluation.by_seed.items()],
        "baselines": _baselines(evaluation) | {"random_init": by_step(evaluation.random_init)},
        "by_kind": [
            {
                "kind": kind,
                "num_tasks": errors.num_tasks,
                "steps": by_step(errors.steps),
                "baselines": _baselines(errors),
            }
            for kind, errors in evaluation.by_kind.items()
        ],
        "ensemble": by_step(evaluation.ensemble),
        "calibration": by_step(evaluation.calibration),
        "notes": evaluation.notes,
    }
    return evaluations.Evaluation.model_validate(fields)


def _baselines(errors: Evaluation | KindErrors) -> dict[str, Any]:
    return {name: plain(of_baseline) for name, of_baseline in errors.baselines.items()}


def _errors_of_tasks(evaluation: Evaluation) -> TaskErrors:
    if evaluation.task_errors is None:
        raise DataError("per_task: the errors of single tasks were not kept; give per_task=True to evaluate")
    return evaluation.task_errors


def _statistics(
    evaluation: Evaluation,
) -> Iterator[tuple[str | None, str, int | None, int | None, str, str, Statistic]]:
    """Kind of the tasks, predictor, seed, inner step, points, measure and statistic of every row of an evaluation."""
    for kind, predictor, seed, step, errors in _predictors(evaluation):
        for points, of_points in zip(PointErrors._fields, errors, strict=True):
            for measure, value in zip(Errors._fields, of_points, strict=True):
                yield kind, predictor, seed, step, points, measure, value
    for step, calibration in enumerate(evaluation.calibration):
        for measure, value in calibration._asdict().items():
            yield None, "learner", None, step, "grid", measure, value


def _predictors(
    evaluation: Evaluation,
) -> Iterator[tuple[str | None, str, int | None, int | None, PointErrors]]:
    """Kind of the tasks, name, seed, inner step and errors of every predictor of an evaluation."""
    for step, errors in enumerate(evaluation.steps):
        yield None, "learner", None, step, errors
    for seed, steps in evaluation.by_seed.items() if len(evaluation.by_seed) > 1 else ():
        for step, errors in enumerate(steps):
            yield None, "learner", seed, step, errors
    for step, errors in enumerate(evaluation.random_init):
        yield None, "random_init", None, step, errors
    all_tasks = KindErrors(evaluation.num_tasks, [], evaluation.baselines)
    for kind, of_kind in [(None, all_tasks), *evaluation.by_kind.items()]:
        for step, errors in enumerate(of_kind.steps):
            yield kind, "learner", None, step, errors
        for name, of_baseline in of_kind.baselines.items():
            if of_baseline:
                yield kind, name, None, None, of_baseline
