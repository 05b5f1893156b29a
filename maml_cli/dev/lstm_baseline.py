"""A baseline that does not adapt by gradients: an LSTM over the support points, trained on the tasks of a config.

The plain LSTM of Huisman et al. 2023 (arXiv:2310.14139), which averages over support points and so does not depend on
their order: two layers of 40 units read each support point (x, y) in four passes. After each pass, the hidden state is
the mean over support points, and each point keeps its own cell state. Query points (x, 0) are read from the last hidden
state with an empty cell state, and a linear layer predicts y.

Shapes: B tasks, K support points, Q query points, L layers, H units.
"""

import math
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from maml_cli.config import Config, to_dict
from maml_cli.core import Points, TaskBatch
from maml_cli.engines import SCHEDULES
from maml_cli.errors import DivergedError
from maml_cli.evaluation import PointErrors, Protocol, sample_test_tasks, summarise_tasks
from maml_cli.evaluation.chunk_errors import mean_errors
from maml_cli.evaluation.evaluate import divergence_limits
from maml_cli.experiment import build_experiment
from maml_cli.runs import replacing
from maml_cli.tasks import make_generator

NUM_LAYERS, NUM_UNITS, NUM_PASSES = 2, 40, 4
FILE = "lstm.pt"
STEPS_AT_ONCE = 100
"""Outer steps whose tasks are sampled at once, which is faster."""


def make_lstm(seed: int) -> nn.ModuleDict:
    """The LSTM and its linear layer with random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        lstm, head = nn.LSTM(2, NUM_UNITS, num_layers=NUM_LAYERS), nn.Linear(NUM_UNITS, 1)
    return nn.ModuleDict({"lstm": lstm, "head": head})


def predict(network: nn.ModuleDict, support: Points, x: Tensor) -> Tensor:
    """Predictions (B, Q, 1) at the query points `x` (B, Q, 1) from the support points (B, K, 1)."""
    num_tasks, num_support, _ = support.x.shape
    pairs = torch.cat([support.x, support.y], dim=-1).flatten(0, 1).unsqueeze(0)
    hidden = pairs.new_zeros(NUM_LAYERS, num_tasks * num_support, NUM_UNITS)
    cell = torch.zeros_like(hidden)
    mean = hidden[:, :num_tasks].unsqueeze(2)
    for _ in range(NUM_PASSES):
        _, (hidden, cell) = network["lstm"](pairs, (hidden, cell))
        mean = hidden.unflatten(1, (num_tasks, num_support)).mean(dim=2, keepdim=True)
        hidden = mean.expand(-1, -1, num_support, -1).flatten(1, 2)
    queries = torch.cat([x, torch.zeros_like(x)], dim=-1).flatten(0, 1).unsqueeze(0)
    hidden = mean.expand(-1, -1, x.shape[1], -1).flatten(1, 2)
    output, _ = network["lstm"](queries, (hidden.contiguous(), torch.zeros_like(hidden)))
    predictions: Tensor = network["head"](output[0]).unflatten(0, (num_tasks, -1))
    return predictions


class TrainedLstm(NamedTuple):
    """A trained LSTM.

    network: as of `make_lstm`.
    seconds: seconds of training.
    file: the file that holds it.
    """

    network: nn.ModuleDict
    seconds: float
    file: Path


def train_lstm(config: Config, run: Path) -> None:
    """Train an LSTM on the tasks of `config` by its outer loop (steps, learning rate, schedule and clipping; Adam), and
    save it in the directory `run`. Raises DivergedError."""
    network, started = make_lstm(config.run.seed), time.perf_counter()
    optimizer = torch.optim.Adam(network.parameters(), lr=config.outer.lr)
    limit = math.inf if config.outer.clip_norm is None else config.outer.clip_norm
    for step, (support, query) in enumerate(_batches(config)):
        loss = (predict(network, support, query.x) - query.y).square().mean()
        if not math.isfinite(loss.item()):
            raise DivergedError(f"{run}: the loss of outer step {step + 1:,} is not finite", outer_step=step + 1)
        optimizer.param_groups[0]["lr"] = config.outer.lr * SCHEDULES[config.outer.schedule](step / config.outer.steps)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        nn.utils.clip_grad_norm_(network.parameters(), limit)
        optimizer.step()
    seconds = time.perf_counter() - started
    run.mkdir(parents=True, exist_ok=True)
    with replacing(run / FILE) as descriptor, open(descriptor, "wb", closefd=False) as stream:
        torch.save({"config": to_dict(config), "seconds": seconds, "params": dict(network.state_dict())}, stream)


def read_lstm(config: Config, run: Path) -> TrainedLstm | None:
    """The LSTM in the directory `run`; None if there is none that was trained by `config`."""
    if not (file := run / FILE).exists():
        return None
    saved = torch.load(file, weights_only=True)
    if Config.model_validate(saved["config"]) != config:
        return None
    network = make_lstm(0)
    network.load_state_dict(saved["params"])
    return TrainedLstm(network, saved["seconds"], file)


def num_lstm_values() -> int:
    """The number of values that are learned."""
    return sum(parameter.numel() for parameter in make_lstm(0).parameters())


@torch.no_grad()
def lstm_errors(network: nn.ModuleDict, config: Config, protocol: Protocol, num_shots: int) -> PointErrors:
    """The errors of a trained LSTM on the test tasks of `protocol` from the family of `config`."""
    tasks = sample_test_tasks(build_experiment(config).family, protocol, num_shots)
    errors: dict[str, list[Tensor]] = {name: [] for name in PointErrors._fields}
    for block in tasks.iter_blocks():
        points = {name: Points(*(tensor[0].float() for tensor in group)) for name, group in block.points.items()}
        for name, values in errors.items():
            x, y = points[name]
            values.append(mean_errors((predict(network, points["support"], x) - y).unsqueeze(0)))
    return summarise_tasks(
        {name: torch.cat(values, dim=1) for name, values in errors.items()}, limits=divergence_limits(tasks)
    )


def _batches(config: Config) -> Iterator[TaskBatch]:
    """The tasks of each outer step, those that a training of `config` has."""
    experiment, generators = build_experiment(config), [make_generator(config.run.seed, "tasks")]
    for start in range(0, config.outer.steps, STEPS_AT_ONCE):
        count = min(STEPS_AT_ONCE, config.outer.steps - start)
        batches = experiment.sample(generators, num_steps=count)
        for step in range(count):
            yield TaskBatch(*(Points(*(tensor[step, 0] for tensor in points)) for points in batches))
