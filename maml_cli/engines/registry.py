"""The table of engines, and the choice of one for a training.

All engines compute the same meta-gradient. `reference` differentiates the unrolled inner loop by autograd; `eager`
uses the adjoint method where it can; `compiled` compiles outer steps with torch.compile; `native` is a C++ kernel for
the CPU. To add an engine, write its module and add its row, and its name to `run.engine` in the schema; limits that
follow from a config alone are rows of `config.engine_support`.
"""

import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import NamedTuple, Protocol

import torch

from maml_cli.config import ENGINE_DEVICES, ENGINE_LIMITS, Config, exceeded
from maml_cli.core import lookup
from maml_cli.engines.compiled import compiled_engine, compiled_unsupported
from maml_cli.engines.eager import eager_engine, reference_engine
from maml_cli.engines.finite import keep_finite
from maml_cli.engines.kernel_ahead import MIN_EAGER_SECONDS, overhead_seconds
from maml_cli.engines.native import native_engine, native_unsupported
from maml_cli.engines.state import Engine, Notify
from maml_cli.engines.task_blocks import ALL_BLOCKS, BlockShare
from maml_cli.errors import ConfigError
from maml_cli.experiment import Experiment, outer_step_work
from maml_cli.runtime import Choice


class MakeEngine(Protocol):
    """Makes an engine for a config that it supports; raises ConfigError if it does not compile.

    `blocks` are those of `outer.task_blocks` that it computes; of no use to engines that do not support that key.
    """

    def __call__(self, config: Config, experiment: Experiment, *, notify: Notify, blocks: BlockShare) -> Engine: ...


class EngineKind(NamedTuple):
    """An engine by name.

    make: the function that makes it.
    missing: device -> parts of the machine that it needs there and that are missing, as noun phrases.
    min_eager_seconds: `run.engine: auto` selects it for trainings that last at least so long with `eager`, so that they
        repay its compile time.
    auto_devices: the types of device on which `auto` may select it.
    """

    make: MakeEngine
    missing: Callable[[torch.device], Iterator[str]]
    min_eager_seconds: float
    auto_devices: Sequence[str]


ENGINES: dict[str, EngineKind] = {
    "native": EngineKind(native_engine, lambda device: native_unsupported(), MIN_EAGER_SECONDS, ["cpu"]),
    "compiled": EngineKind(compiled_engine, compiled_unsupported, 120.0, ["cuda"]),
    "eager": EngineKind(eager_engine, lambda device: iter(()), 0.0, ["cpu", "cuda", "mps"]),
    "reference": EngineKind(reference_engine, lambda device: iter(()), math.inf, []),
}
"""Values of `run.engine` besides `auto`, fastest first.

`compiled` is for GPUs. On a CPU it needs a C++ compiler as `native` does, and is a third as fast.
"""


def choose_engine(config: Config, device: torch.device) -> Choice:
    """The engine for `config` on `device`: the named one, or for `auto` the fastest that supports it and repays its
    compile time.

    The choice depends on config and machine alone, not on kernels compiled earlier, so that equal trainings are equal.
    Raises ConfigError if the named engine does not support the config.
    """
    named = config.run.engine
    if named != "auto":
        if reason := unsupported(named, config, device):
            raise ConfigError(f"engine {named} does not support {reason}; use run.engine: auto")
        return Choice(named, "as asked")
    rejected: dict[str, list[str]] = {}
    for name, kind in ENGINES.items():
        if device.type not in kind.auto_devices:
            continue
        reason = unsupported(name, config, device)
        if reason is None and eager_seconds(config) >= kind.min_eager_seconds:
            return Choice(name, "; ".join([*_reasons(rejected), "the fastest that supports this config"]))
        rejected.setdefault(reason or "too short a training to repay compiling", []).append(name)
    raise ConfigError(f"no engine supports this config: {'; '.join(_reasons(rejected))}")


def _reasons(rejected: Mapping[str, Sequence[str]]) -> list[str]:
    """The engines that were not chosen, by reason: `not native or compiled: ...`."""
    return [f"not {' or '.join(names)}: {reason}" for reason, names in rejected.items()]


def eager_seconds(config: Config) -> float:
    """Estimated seconds of `eager` on one core: the overhead of its passes, and the arithmetic."""
    return overhead_seconds(config) + config.outer.steps * outer_step_work(config) / 2e10


def unsupported(name: str, config: Config, device: torch.device) -> str | None:
    """The first thing that engine `name` does not support in `config` on `device`; None if it supports everything."""
    kind = _engine_kind(name)
    device_problem = [] if device.type in ENGINE_DEVICES.get(name, (device.type,)) else [f"device {device.type}"]
    problems = itertools.chain(device_problem, exceeded(ENGINE_LIMITS.get(name, []), config), kind.missing(device))
    return next(problems, None)


def make_engine(
    name: str,
    config: Config,
    experiment: Experiment,
    *,
    notify: Notify = lambda text: None,
    blocks: BlockShare = ALL_BLOCKS,
) -> Engine:
    """The engine `name` for `config`, which it supports; raises ConfigError if it does not compile.

    A run whose update overflows is frozen before it, whichever the engine: see keep_finite.
    """
    return keep_finite(_engine_kind(name).make(config, experiment, notify=notify, blocks=blocks))


def _engine_kind(name: str) -> EngineKind:
    return lookup(ENGINES, name, "run.engine", "engines.registry.ENGINES")
