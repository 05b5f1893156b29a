"""The process of one contender of the benchmark: an engine or another library that answers requests on stdin.

Started by `maml_cli.dev.contenders` with {"name": ..., "overrides": [...], "config": ...} as its argument. It computes
on as many cores as its config has threads, always the same. Each request is a line, and each reply a line with a JSON
object:

verify        {"distance": relative distance of the meta-gradient from the reference engine in float64}
warm-up       {"memory_mib": growth of the peak memory by the first outer step, compiling included}
time 0.5      {"wall": milliseconds per outer step, over about 0.5 seconds, "processor": of them, of processor time}
"""

import json
import os
import resource
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from maml_cli.config import Config, from_dict, load_config
from maml_cli.core import flatten, relative_distance, tensors
from maml_cli.dev import arithmetic, other_libraries
from maml_cli.dev.learner import Problem
from maml_cli.engines import registry
from maml_cli.experiment import build_experiment
from maml_cli.runtime import keep_freed_memory, set_threads
from maml_cli.tasks import make_generator
from maml_cli.training import init_state

TOLERANCE = 1e-5
"""Largest relative distance of a mean meta-gradient in float32 from that of the reference engine in float64."""


class Worker(NamedTuple):
    """A contender, ready to compute.

    advance: takes at least one and about as many outer steps as asked; returns how many.
    gradient: the mean meta-gradient of the first outer step, flat; before any call of `advance`. None: it has none.
    """

    advance: Callable[[int], int]
    gradient: Callable[[], Tensor] | None


def main(name: str, overrides: Sequence[str], preset: str) -> None:
    """Answer requests until there are no more."""
    config = bench_config(overrides, preset)
    pin_to_cores(config.run.threads)
    set_threads(config.run.threads)
    memory = peak_mib()
    worker = make_worker(name, config)
    for line in sys.stdin:
        request, *arguments = line.split()
        if request == "verify":
            reply = {}
            if worker.gradient is not None:
                reply = {"distance": relative_distance([worker.gradient()], [reference_gradient(config)])}
        elif request == "warm-up":
            worker.advance(1)
            reply = {"memory_mib": peak_mib() - memory}
        else:
            reply = outer_step_milliseconds(worker.advance, float(arguments[0]))._asdict()
        print(json.dumps(reply), flush=True)


def bench_config(overrides: Sequence[str], preset: str = "finn-10shot") -> Config:
    """The preset on the CPU with `overrides`, without evaluations."""
    return load_config(preset, ["run.device=cpu", "run.eval_every=0", *overrides]).config


def pin_to_cores(count: int) -> None:
    """Let this process compute on the first `count` of its cores alone, on systems that have such a call."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


class Milliseconds(NamedTuple):
    """Of an outer step: time, and processor time of all threads."""

    wall: float
    processor: float


def outer_step_milliseconds(advance: Callable[[int], int], seconds: float) -> Milliseconds:
    """Milliseconds per outer step, over about `seconds`; the calls of `advance` double up to 1,000 steps."""
    count, steps, started, used = 1, 0, time.perf_counter(), time.process_time()
    while (elapsed := time.perf_counter() - started) < seconds:
        steps += advance(count)
        count = min(1000, 2 * count)
    return Milliseconds(1e3 * elapsed / steps, 1e3 * (time.process_time() - used) / steps)


def make_worker(name: str, config: Config) -> Worker:
    """The worker of an engine, a library or `MULTIPLY_ADDS`."""
    if name == arithmetic.MULTIPLY_ADDS:
        return Worker(arithmetic.limit(config), None)
    return library_worker(name, config) if name in other_libraries.LIBRARIES else engine_worker(name, config)


def engine_worker(name: str, config: Config) -> Worker:
    """The engine `name`, as a training would use it."""
    keep_freed_memory()
    experiment = build_experiment(config)
    state, first_state = init_state(config, experiment), init_state(config, experiment)
    engine = registry.make_engine(name, config, experiment)

    def advance(count: int) -> int:
        engine(state, count)
        state.step = 0  # so that the schedule does not end
        return count

    return Worker(advance, lambda: _flat(tensors(engine(first_state, 1).gradients)))


def library_worker(name: str, config: Config) -> Worker:
    """The learner of another library, from the same weights as the engines."""
    experiment = build_experiment(config)
    params = experiment.init_meta_params(config.seeds).params
    weights = [value[0].T if key.endswith(".w") else value[0, 0] for key, value in params.items()]
    problem = Problem(
        [weight.contiguous() for weight in weights],
        alpha=config.inner.alpha.init_range[0],
        alpha_learned=config.inner.alpha.learned,
        steps=config.inner.steps,
        lr=config.outer.lr,
        num_tasks=config.outer.tasks_per_step,
        num_points=config.tasks.max_support,
    )
    learner = other_libraries.LIBRARIES[name].make(problem)

    def advance(count: int) -> int:
        calls = max(1, count // learner.steps_per_call)
        for _ in range(calls):
            learner.step()
        return calls * learner.steps_per_call

    def gradient() -> Tensor:
        batch = experiment.sample([make_generator(seed, "tasks") for seed in config.seeds])
        (support_x, support_y), (query_x, query_y) = ((points.x[0], points.y[0]) for points in batch)
        values = learner.gradient((support_x, support_y, query_x, query_y))
        by_step = [value if value.dim() == 1 else value.T for value in values]
        weights, alphas = by_step[: len(problem.weights)], by_step[len(problem.weights) :]
        return _flat(weights + [torch.stack(alphas[i :: len(weights)]) for i in range(len(weights)) if alphas])

    return Worker(advance, gradient)


def reference_gradient(config: Config) -> Tensor:
    """The mean meta-gradient of the first outer step by the reference engine in float64, flat."""
    data = config.model_dump(mode="json")
    exact = from_dict(data | {"run": data["run"] | {"dtype": "float64"}}, label="bench")
    experiment = build_experiment(exact)
    engine = registry.make_engine("reference", exact, experiment)
    return _flat(tensors(engine(init_state(exact, experiment), 1).gradients))


def peak_mib() -> float:
    """Peak memory of this process so far, in MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def _flat(values: Sequence[Tensor]) -> Tensor:
    return flatten(values, batch_dims=0)


if __name__ == "__main__":
    contender = json.loads(sys.argv[1])
    main(contender["name"], contender["overrides"], contender["config"])
