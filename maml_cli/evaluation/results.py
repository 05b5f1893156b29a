"""Results of evaluations as plain values: nested dictionaries for JSON, and rows for tables."""

from collections.abc import Sequence
from typing import Any, NamedTuple

from maml_cli.evaluation.evaluate import Evaluation
from maml_cli.evaluation.statistics import Errors, PointErrors, Statistic


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

    def to_dict(self) -> dict[str, Any]:
        """The contents of `maml eval --json`: dictionaries, lists, strings, and numbers, which may be infinite."""
        return {
            "checkpoint": self.checkpoint,
            "step": self.step,
            "overrides": list(self.overrides),
            "results": [_evaluation(evaluation) for evaluation in self.results],
        }

    def to_rows(self) -> list[dict[str, Any]]:
        """A row for each K, predictor, inner step, set of points and measure, as `pandas.DataFrame` takes them.

        shots: K.
        predictor: `learner`, `random_init` or the name of a baseline.
        seed: of training; None for the mean over seeds, and for predictors without one.
        inner_step: from 0; None for predictors that do not adapt.
        points: `grid`, `query` or `support`.
        measure: `mse` or `mae`.
        mean, ci95, median: as in Statistic.
        """
        return [
            {"shots": evaluation.shots, "predictor": predictor, "seed": seed, "inner_step": step, "points": points}
            | {"measure": measure, "mean": value.mean, "ci95": value.ci95, "median": value.median}
            for evaluation in self.results
            for predictor, seed, step, errors in _predictors(evaluation)
            for points, of_points in zip(PointErrors._fields, errors, strict=True)
            for measure, value in zip(Errors._fields, of_points, strict=True)
        ]


def by_step(steps: Sequence[PointErrors]) -> list[dict[str, Any]]:
    """The errors after inner steps 0, 1, ... as dictionaries."""
    return [{"step": step, **plain(errors)} for step, errors in enumerate(steps)]


def plain(value: Any) -> Any:
    """NamedTuples within NamedTuples as dictionaries; an interval over seeds only where there are several."""
    if isinstance(value, Statistic) and value.ci95_seeds is None:
        return {"mean": value.mean, "ci95": value.ci95, "median": value.median}
    if isinstance(value, tuple) and hasattr(value, "_asdict"):
        return {name: plain(item) for name, item in value._asdict().items()}
    return value


def _evaluation(evaluation: Evaluation) -> dict[str, Any]:
    return {
        "shots": evaluation.shots,
        "num_tasks": evaluation.num_tasks,
        "seed": evaluation.seed,
        "trained_steps": evaluation.trained_steps,
        "steps": by_step(evaluation.steps),
        "by_seed": [{"seed": seed, "steps": by_step(steps)} for seed, steps in evaluation.by_seed.items()],
        "baselines": {
            **{name: plain(errors) for name, errors in evaluation.baselines.items()},
            "random_init": by_step(evaluation.random_init),
        },
        **({"notes": evaluation.notes} if evaluation.notes else {}),
    }


def _predictors(evaluation: Evaluation) -> list[tuple[str, int | None, int | None, PointErrors]]:
    """Name, seed, inner step and errors of every predictor of an evaluation."""
    learner = [("learner", None, step, errors) for step, errors in enumerate(evaluation.steps)]
    by_seed = [
        ("learner", seed, step, errors)
        for seed, steps in evaluation.by_seed.items()
        for step, errors in enumerate(steps)
        if len(evaluation.by_seed) > 1
    ]
    random_init = [("random_init", None, step, errors) for step, errors in enumerate(evaluation.random_init)]
    baselines = [(name, None, None, errors) for name, errors in evaluation.baselines.items() if errors]
    return [*learner, *by_seed, *random_init, *baselines]
