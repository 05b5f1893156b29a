"""The quickstart in full, by the kernel: errors on ten points of one's own, and the worst of 4,000 test tasks.

The expected values were measured before these commands existed. With MAML_FULL_TESTS in the environment alone,
as it takes a whole training.
"""

import json
import math

import pytest
import torch

import maml_cli as maml
from maml_cli.engines import kernel_build
from tests.conformance import FULL
from tests.conftest import Cli

pytestmark = [
    pytest.mark.skipif(not FULL, reason="a whole training; with MAML_FULL_TESTS=1"),
    pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler on this machine"),
]


def test_errors_on_own_points_and_the_worst_task_are_the_known_ones(cli: Cli) -> None:
    run = cli("train", "-c", "quickstart", "-s", "run.engine=native", "-q").out.strip()

    x = torch.linspace(-4.5, 4.5, 10)
    grid = torch.linspace(-5, 5, 100)
    fitted = maml.load(run).adapt(x, 2 * (x - 1).sin(), steps=10)
    errors = [float((values - 2 * (grid - 1).sin()).square().mean()) for values in fitted.steps(grid)]
    expected = {0: 0.5891, 1: 0.0208, 2: 0.0156, 5: 0.0135, 10: 0.0118}
    assert {step: errors[step] for step in expected} == pytest.approx(expected, rel=0.05)

    result = json.loads(cli("eval", run, "--tasks", 4000, "--json").out)["results"][0]
    worst = {step["step"]: step["grid"]["mse"]["worst"] for step in result["steps"]}
    expected = {0: 14.4, 1: 3.87, 5: 10.1, 10: 6.92}
    assert {step: worst[step] for step in expected} == pytest.approx(expected, rel=0.05)
    assert all(map(math.isfinite, worst.values()))
