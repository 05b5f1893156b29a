"""Golden results: numbers that no change of the code may change."""

import json
from pathlib import Path

import pytest

from tests.conftest import Cli

GOLDEN = Path(__file__).parent / "golden"
SMOKE = ["outer.steps=20", "run.log_every=1", "run.eval_every=20", "run.eval_tasks=8", "run.dtype=float64"]


def test_losses_of_the_smoke_preset_are_as_recorded(cli: Cli) -> None:
    """In float64 by the unrolled engine: query losses, gradient norms and validation errors to 1e-9.

    The file was written once by this very command. A difference is a change of the random streams, of the
    initialisation, of the inner loop or of an optimiser, and is meant to be noticed.
    """
    changes = [word for key in [*SMOKE, "run.engine=reference", "run.device=cpu"] for word in ("--set", key)]
    result = cli("train", "--config", "smoke", "--quiet", *changes)
    assert result.code == 0, result.err
    lines = [json.loads(line) for line in (Path(result.out.strip()) / "metrics.jsonl").read_text().splitlines()]
    expected = [json.loads(line) for line in (GOLDEN / "smoke.jsonl").read_text().splitlines()]
    assert len(lines) == len(expected)
    for actual, recorded in zip(lines, expected, strict=True):
        assert _numbers(actual) == pytest.approx(_numbers(recorded), rel=1e-9, abs=1e-12)


def _numbers(value: object) -> list[float]:
    """All numbers of nested dictionaries and lists, in order."""
    if isinstance(value, dict):
        return [number for item in value.values() for number in _numbers(item)]
    if isinstance(value, list):
        return [number for item in value for number in _numbers(item)]
    assert isinstance(value, int | float), value
    return [float(value)]
