"""The training state at the start, as the contents of a checkpoint, and restored from them."""

from typing import Any

import torch

from maml_cli import __version__
from maml_cli.config import Config, to_dict
from maml_cli.core import MetaParams
from maml_cli.engines import OuterOptimizer, TrainState, make_outer_optimizer
from maml_cli.errors import CheckpointError
from maml_cli.experiment import Experiment
from maml_cli.tasks import make_generator


def init_state(config: Config, experiment: Experiment) -> TrainState:
    """The state before the first outer step, on the experiment's device."""
    seeds = config.seeds
    meta_params = experiment.init_meta_params(seeds)
    streams = [make_generator(seed, "tasks") for seed in seeds]
    zeros = torch.zeros(len(seeds), dtype=torch.int64)
    noise = [make_generator(seed, "noise") for seed in seeds] if config.outer.weight_noise else []
    return TrainState(
        meta_params,
        _optimizers(config, experiment, meta_params),
        streams,
        step=0,
        loss_sum=zeros.double(),
        skipped_tasks=zeros.clone(),
        diverged=zeros.clone(),
        noise_generators=noise,
    )


def snapshot(config: Config, state: TrainState) -> dict[str, Any]:
    """The contents of a checkpoint, enough to evaluate and to resume with the same bytes.

    step: outer steps taken.
    config: as plain values.
    meta_params: MetaParams as a dictionary, (R, ...).
    optimizers: state of each outer optimiser.
    generators, noise_generators: state of the random streams of each run.
    loss_sum, skipped_tasks: sums since the last line of metrics.jsonl, (R,).
    diverged: the outer step at which each run diverged, 0 for active runs, (R,).
    versions: of maml and torch.
    """
    return {
        "step": state.step,
        "config": to_dict(config),
        "meta_params": state.meta_params._asdict(),
        "optimizers": {name: outer.optimizer.state_dict() for name, outer in state.optimizers.items()},
        "generators": [stream.get_state() for stream in state.generators],
        "noise_generators": [stream.get_state() for stream in state.noise_generators],
        "loss_sum": state.loss_sum,
        "skipped_tasks": state.skipped_tasks,
        "diverged": state.diverged,
        "versions": {"maml": __version__, "torch": torch.__version__},
    }


def restore_state(config: Config, experiment: Experiment, contents: dict[str, Any]) -> TrainState:
    """The state that `snapshot` saved as `contents`; raises CheckpointError if they do not fit `config`."""
    if not {"optimizers", "generators"} <= contents.keys():
        raise CheckpointError("evaluation-only checkpoint (no optimiser state): training cannot resume from it")
    meta_params = experiment.load_meta_params(contents["meta_params"])
    optimizers = _optimizers(config, experiment, meta_params)
    try:
        for name, outer in optimizers.items():
            outer.optimizer.load_state_dict(contents["optimizers"][name])
        streams, noise = (_generators(contents.get(name, [])) for name in ("generators", "noise_generators"))
        loss_sum, skipped_tasks = (contents[name].clone() for name in ("loss_sum", "skipped_tasks"))
        diverged = contents.get("diverged", torch.zeros_like(skipped_tasks)).clone()
    except (KeyError, ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"optimiser or generator state does not fit the config: {error}") from None
    return TrainState(
        meta_params,
        optimizers,
        streams,
        step=contents["step"],
        loss_sum=loss_sum,
        skipped_tasks=skipped_tasks,
        diverged=diverged,
        noise_generators=noise,
    )


def _generators(states: list[torch.Tensor]) -> list[torch.Generator]:
    streams = [torch.Generator() for _ in states]
    for stream, state in zip(streams, states, strict=True):
        stream.set_state(state)
    return streams


def _optimizers(config: Config, experiment: Experiment, meta_params: MetaParams) -> dict[str, OuterOptimizer]:
    """An outer optimiser for the parameters and for each learned group of the update rule; alpha may have its own."""
    outer, alpha = config.outer, config.inner.alpha
    tensors = {"params": [*meta_params.params.values()]}
    tensors |= {
        name: [meta_params.rule_params[key] for key in keys] for name, keys in experiment.learned_keys.items() if keys
    }
    choices = dict.fromkeys(tensors, (outer.optimizer, outer.lr))
    if "alpha" in tensors:
        choices["alpha"] = (alpha.optimizer or outer.optimizer, alpha.lr or outer.lr)
    return {name: make_outer_optimizer(kind, tensors[name], lr) for name, (kind, lr) in choices.items()}
