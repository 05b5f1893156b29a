"""Test tasks as plain values for the playground of a report, and the parameters that a reader may set."""

import math
from typing import Any

from maml_cli.evaluation import Protocol, TaskFit, TrainedRun, fit_tasks, sample_test_tasks
from maml_cli.tasks import SineFamily

NUM_TASKS = 24
GRID_POINTS = 100
"""Points of the grid that errors are measured on, as in evaluations."""
MAX_SUPPORT = 200
"""Largest number of support points that a task begins with."""


def playground_tasks(run: TrainedRun, *, measure: str) -> dict[str, Any]:
    """The first test tasks of `run`, with as many support points as in training, in the units of its tasks.

    measure: of errors, mse or mae.
    x, y: limits of the axes.
    grid: inputs at which functions and predictions are drawn.
    tasks: support points, and the truth on the grid with the parameters of a sinusoid; for a curve without a formula
        its other points.
    sliders: parameters of a sinusoid, with the trained range of each; none for other families.
    """
    shots = min(run.config.tasks.max_support, MAX_SUPPORT)
    protocol = Protocol(NUM_TASKS, (shots,), steps=0)
    fits = fit_tasks(run, protocol, num_points=GRID_POINTS)
    family = run.experiment.family
    low, high = family.x
    test_low, test_high = family.test_range
    return {
        "measure": measure,
        "x": [min(low, test_low), max(high, test_high)],
        "y": _limits(fits),
        "grid": fits[0].x.tolist(),
        "tasks": [_task(fit) | more for fit, more in zip(fits, _parameters(run, protocol, len(fits)), strict=True)],
        "sliders": _sliders(family) if isinstance(family, SineFamily) else [],
    }


def _task(fit: TaskFit) -> dict[str, Any]:
    support = {"x": fit.support_x.tolist(), "y": fit.support_y.tolist()}
    if fit.others is None:
        return support | {"truth": fit.truth.tolist(), "others": None}
    return support | {"truth": None, "others": {"x": fit.others.x.tolist(), "y": fit.others.y.tolist()}}


def _parameters(run: TrainedRun, protocol: Protocol, count: int) -> list[dict[str, Any]]:
    """The parameters of each task of sinusoids; empty for tasks of other families."""
    if not isinstance(run.experiment.family, SineFamily):
        return [{}] * count
    blocks = sample_test_tasks(run.experiment.family, protocol, *protocol.shots).iter_blocks()
    columns = [block.functions.columns() for block in blocks]
    return [
        {"parameters": dict(zip(of_block, values, strict=True))}
        for of_block in columns
        for values in zip(*of_block.values(), strict=True)
    ]


def _limits(fits: list[TaskFit]) -> list[float]:
    """The range of all targets, with a margin."""
    values = [
        value
        for fit in fits
        for tensor in (fit.truth, fit.support_y, *([fit.others.y] if fit.others else []))
        for value in tensor.tolist()
        if math.isfinite(value)
    ]
    low, high = min(values), max(values)
    margin = 0.1 * (high - low) or 1.0
    return [low - margin, high + margin]


def _sliders(family: SineFamily) -> list[dict[str, Any]]:
    """Amplitude, frequency and phase, and an offset that varies: name, ends of the slider, and the trained range."""
    ranges = {"amplitude": family.amplitude, "frequency": family.frequency, "phase": family.phase}
    if family.offset[0] < family.offset[1]:
        ranges["offset"] = family.offset
    widest = {
        "amplitude": (0.0, 1.5 * family.amplitude[1]),
        "frequency": (0.5 * family.frequency[0], 1.5 * family.frequency[1]),
        "phase": (0.0, 2 * math.pi),
        "offset": family.offset,
    }
    return [
        {
            "name": name,
            "min": min(low, widest[name][0]),
            "max": max(high, widest[name][1]),
            "trained": [low, high],
            "value": (low + high) / 2,
        }
        for name, (low, high) in ranges.items()
    ]
