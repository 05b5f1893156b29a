"""The composition root: from a Config to the functions and the distribution that a run is made of."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import NamedTuple

import torch
from torch import Generator

from maml_cli import algorithms, devices
from maml_cli.algorithms import BEYOND, Algorithm, Meta, annealed_to_last
from maml_cli.config import Config
from maml_cli.errors import CheckpointError
from maml_cli.losses import LOSSES, TaskLoss, mean_loss
from maml_cli.model import ACTIVATIONS, Params, Predict, init_mlp, mlp
from maml_cli.tasks import SineFamily, TaskBatch, generator


class Experiment(NamedTuple):
    """Everything that a config means, ready to compute on `device` in `dtype`."""

    family: SineFamily
    sample: Callable[[Sequence[Generator]], TaskBatch]
    predict: Predict
    loss: TaskLoss
    algorithm: Algorithm
    hidden: Sequence[int]
    init: str
    device: torch.device
    dtype: torch.dtype

    def init_params(self, generator: Generator, *batch: int) -> Params:
        """Random parameters of the network, (*batch, in, out) and (*batch, 1, out)."""
        params = init_mlp(generator, hidden=self.hidden, init=self.init, batch=batch)
        return {key: value.to(self.device, self.dtype) for key, value in params.items()}

    def init_meta(self, seeds: Sequence[int]) -> Meta:
        """What is meta-learned as it is before training, one run for each seed along the first axis."""
        runs = [self.init_params(generator(seed, "init")) for seed in seeds]
        return self.algorithm.init({key: torch.stack([run[key] for run in runs]) for key in runs[0]})

    def load_meta(self, saved: Mapping[str, Mapping[str, torch.Tensor]]) -> Meta:
        """The Meta in a checkpoint; raises CheckpointError if it does not fit this experiment."""
        fresh = self.init_meta([0])
        parts = []
        for name, part in fresh._asdict().items():
            shapes = {key: value.shape[1:] for key, value in part.items()}
            if {key: value.shape[1:] for key, value in saved.get(name, {}).items()} != shapes:
                raise CheckpointError(f"its {name} do not fit its config")
            parts.append({key: saved[name][key].to(self.device, self.dtype) for key in part})
        return Meta(*parts)


def build(config: Config, device: torch.device | str = "cpu") -> Experiment:
    """The experiment that `config` describes, on `device`."""
    inner, alpha, until = config.inner, config.inner.alpha, config.outer.multi_step_until
    keys = _param_keys(len(config.model.hidden))
    groups = algorithms.alpha_groups(algorithms.adapted_keys(keys, subset=inner.adapt), per=alpha.per)
    predict = partial(mlp, activation=ACTIVATIONS[config.model.activation])
    loss = mean_loss(predict, LOSSES[inner.loss])
    init_rule = partial(
        algorithms.init_alphas,
        groups=groups,
        value=alpha.init,
        per_parameter=alpha.per == "parameter",
        num_alphas=inner.steps if alpha.per_step else 1,
    )
    dtype = getattr(torch, config.run.dtype)
    family = SineFamily(**{name: getattr(config.tasks, name) for name in SineFamily._fields})
    return Experiment(
        family=family,
        sample=partial(
            family.sample,
            num_tasks=config.outer.tasks_per_step,
            num_support=config.tasks.num_support,
            num_query=config.tasks.num_query,
            dtype=dtype,
            device=device,
        ),
        predict=predict,
        loss=loss,
        algorithm=algorithms.maml(
            loss,
            groups=groups,
            init_rule=init_rule,
            learns_rule=alpha.learned,
            steps=inner.steps,
            first_order=inner.order == "first",
            first_order_until=inner.first_order_until,
            beyond=BEYOND[alpha.beyond],
            weights=annealed_to_last(inner.steps, until=until) if until else None,
        ),
        hidden=config.model.hidden,
        init=config.model.init,
        device=torch.device(device),
        dtype=dtype,
    )


def choose_device(config: Config, requested: str | None = None) -> devices.Choice:
    """The device for `config`, or the one that is `requested` in its place; raises ConfigError if it is not here."""
    return devices.choose(
        requested or config.run.device, work=outer_step_work(config), needs_float64=config.run.dtype == "float64"
    )


def outer_step_work(config: Config) -> int:
    """Multiply-adds of one outer step: 3 passes over the query, 3 or (through two derivatives) 9 a support step."""
    sizes = [1, *config.model.hidden, 1]
    weights = sum(fan_in * fan_out for fan_in, fan_out in pairwise(sizes))
    passes = 9 if config.inner.order == "second" else 3
    points = config.tasks.num_support * config.inner.steps * passes + config.tasks.num_query * 3
    return config.outer.tasks_per_step * points * weights


def _param_keys(num_hidden: int) -> list[str]:
    names = [*(f"hidden{layer}" for layer in range(num_hidden)), "head"]
    return [f"{name}.{part}" for name in names for part in ("w", "b")]
