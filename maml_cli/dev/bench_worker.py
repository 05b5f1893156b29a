"""One contender of the benchmark in a process of its own: an engine or a peer, seen to be right and then timed.

Started by `maml_cli.bench` with a JSON document as its argument; prints one JSON line when it is ready, and one for
each line that it reads, which says for how many seconds to run.
"""

import json
import resource
import sys
import time
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from maml_cli.config import Config, from_dict, load_config
from maml_cli.core import tensors
from maml_cli.dev import other_libraries
from maml_cli.engines import registry
from maml_cli.experiment import build_experiment
from maml_cli.runtime import keep_freed_memory, set_threads
from maml_cli.tasks import make_generator
from maml_cli.training import init_state

TOLERANCE = 1e-5
"""Relative distance of a mean meta-gradient in float32 from the reference in float64."""


def main(name: str, overrides: list[str], *, checked: bool) -> None:
    """Say how far the gradient is from the reference, then time as asked until there is no more to read."""
    config = load_config("finn-10shot", ["run.device=cpu", "model.init=torch", "run.eval_every=0", *overrides]).config
    set_threads(config.run.threads)
    keep_freed_memory()
    before = _peak_mib()
    advance, gradient = _peer(name, config) if name in other_libraries.PEERS else _engine(name, config)
    distance = _distance(gradient(), _reference(config)) if checked else 0.0
    advance(1)
    print(json.dumps({"distance": distance, "memory_mib": _peak_mib() - before}), flush=True)
    for line in sys.stdin:
        print(json.dumps({"milliseconds": _timed(advance, float(line))}), flush=True)


def _timed(advance: Callable[[int], int], seconds: float) -> float:
    """Milliseconds an outer step, over about so many seconds."""
    count, done, started = 1, 0, time.perf_counter()
    while (spent := time.perf_counter() - started) < seconds:
        done += advance(count)
        count = min(1000, 2 * count)
    return 1e3 * spent / done


def _engine(name: str, config: Config) -> tuple[Callable[[int], int], Callable[[], Tensor]]:
    experiment = build_experiment(config)
    state, fresh = init_state(config, experiment), init_state(config, experiment)
    step = registry.make_engine(name, config, experiment)

    def advance(count: int) -> int:
        step(state, count)
        state.step = 0  # the schedule does not end
        return count

    return advance, lambda: torch.cat([value.flatten() for value in tensors(step(fresh, 1).gradients)])


def _peer(name: str, config: Config) -> tuple[Callable[[int], int], Callable[[], Tensor]]:
    experiment = build_experiment(config)
    params = experiment.init_meta_params(config.seeds).params
    weights = [value[0].T if key.endswith(".w") else value[0, 0] for key, value in params.items()]
    problem = other_libraries.Problem(
        [w.contiguous() for w in weights],
        config.inner.alpha.init,
        config.inner.steps,
        config.outer.tasks_per_step,
        config.tasks.num_support,
    )
    peer, in_call = other_libraries.PEERS[name](problem), other_libraries.STEPS_IN_CALL.get(name, 1)

    def advance(count: int) -> int:
        calls = max(1, count // in_call)
        for _ in range(calls):
            peer.step()
        return calls * in_call

    def gradient() -> Tensor:
        batch = experiment.sample([make_generator(seed, "tasks") for seed in config.seeds])
        support, query = ([part[0] for part in split] for split in (batch.support, batch.query))
        found = peer.gradient((support[0], support[1], query[0], query[1]))
        return torch.cat([value.flatten() if value.dim() == 1 else value.T.flatten() for value in found])

    return advance, gradient


def _reference(config: Config) -> Tensor:
    """The mean meta-gradient of the first outer step, by the unrolled graph in float64."""
    data = config.model_dump(mode="json")
    exact = from_dict(data | {"run": data["run"] | {"dtype": "float64"}}, label="bench")
    experiment = build_experiment(exact)
    found = registry.make_engine("reference", exact, experiment)(init_state(exact, experiment), 1).gradients
    return torch.cat([value.flatten() for value in tensors(found)])


def _distance(found: Tensor, expected: Tensor) -> float:
    apart: float = ((found.double() - expected).norm() / expected.norm()).item()
    return apart


def _peak_mib() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


if __name__ == "__main__":
    given: dict[str, Any] = json.loads(sys.argv[1])
    main(given["name"], given["overrides"], checked=given["checked"])
