"""Advice after a training whose learner is of no use: worse than predicting zero, or no better for adapting."""

import contextlib
import math
from pathlib import Path

from maml_cli.config import Config, locate_table
from maml_cli.errors import FileError
from maml_cli.evaluation import Errors, mean, sample_validation_tasks, zero_errors
from maml_cli.runs import metrics
from maml_cli.tasks import make_family
from maml_cli.training.advice import Change, accepted, in_words, lower_alpha, smaller


def result_advice(run: Path, config: Config) -> str:
    """One line about the last validation of a training that took all its outer steps; empty if nothing is wrong.

    Errors are means over the grid, the validation tasks and the seeds that did not diverge: absolute for a run trained
    on L1, else squared. Joint training does not adapt, and an oracle network need not: adapting may then gain nothing.
    """
    record = None
    with contextlib.suppress(FileError):  # a log too large to be read
        record = metrics.read_final_evaluation(run, config.outer.steps)
    if record is None or config.trained_steps == 0:
        return ""
    measure = config.measure
    by_run = record.grid_mae if measure == "mae" else record.grid_mse
    active = [index for index, errors in enumerate(by_run) if not all(map(math.isnan, errors))]
    if not active or len(by_run) != len(config.seeds):
        return ""
    before, after = (_mean_error([by_run[index][step] for index in active]) for step in (0, -1))
    by_seed = _zero_errors(locate_table(config, run), measure)
    zero = mean([by_seed[index] for index in active])
    steps = f"{config.trained_steps} inner step{'s' if config.trained_steps > 1 else ''}"
    if after > zero:
        problem = (
            f"after {steps} the validation error is {_number(after)}, worse than {_number(zero)} of predicting zero"
        )
    elif after >= before and not config.model.oracle:
        problem = (
            f"adapting gains nothing: validation error {_number(before)} before and {_number(after)} after {steps}"
        )
    else:
        return ""
    changes = accepted(config, _changes(config))
    return f"{problem}; {in_words(changes)}" if changes else problem


def _changes(config: Config) -> list[Change]:
    inner, outer = config.inner, config.outer
    return [
        Change("more outer steps", f"outer.steps={10 * outer.steps}"),
        lower_alpha(config),
        *([] if inner.alpha.learned else [Change("a learned one", "inner.alpha.learned=true")]),
        Change("a lower outer learning rate", f"outer.lr={smaller(outer.lr, 0.001):g}"),
    ]


def _zero_errors(config: Config, measure: str) -> list[float]:
    """The mean error of predicting zero on the validation tasks of each seed."""
    tasks = sample_validation_tasks(
        make_family(dict(config.tasks)),
        config.seeds,
        num_tasks=config.run.eval_tasks,
        num_shots=config.tasks.max_support,
    )
    errors: list[float] = zero_errors(tasks)["grid"][:, Errors._fields.index(measure)].tolist()
    return errors


def _mean_error(by_run: list[float]) -> float:
    """The mean over runs; an error that was not finite is read as NaN and counts as infinite."""
    return mean([math.inf if math.isnan(value) else value for value in by_run])


def _number(value: float) -> str:
    return f"{value:.3g}" if math.isfinite(value) else "infinite"
