"""The training state at the start, as the contents of a checkpoint, and restored from them."""

from typing import Any

import torch

from maml_cli import __version__
from maml_cli.config import Config, to_dict
from maml_cli.core import MetaParams
from maml_cli.engines import OuterOptimizer, TrainState, load_state, make_outer_optimizer, save_state
from maml_cli.errors import CheckpointError
from maml_cli.experiment import Experiment
from maml_cli.tasks import make_generator
from maml_cli.training.random_streams import restore_generators, save_generators


def init_state(config: Config, experiment: Experiment, start: MetaParams | None = None) -> TrainState:
    """The state before the first outer step, on the experiment's device; `start` has initial values, (R, ...), in place
    of random ones, and in place of those that the config gives to rule parameters, all or some."""
    seeds = config.seeds
    meta_params = experiment.init_meta_params(seeds)
    if start is not None:
        device = experiment.device
        groups = zip(meta_params, start, strict=True)
        meta_params = MetaParams(*(old | {key: value.to(device) for key, value in new.items()} for old, new in groups))
    zeros = torch.zeros(len(seeds), dtype=torch.int64)
    return TrainState(
        meta_params,
        _optimizers(config, experiment, meta_params),
        [make_generator(seed, "tasks") for seed in seeds],
        step=0,
        loss_sum=zeros.double(),
        skipped_tasks=zeros.clone(),
        diverged=zeros.clone(),
        noise_generators=[make_generator(seed, "noise") for seed in _noise_seeds(config)],
    )


def snapshot(config: Config, state: TrainState) -> dict[str, Any]:
    """The contents of a checkpoint, enough to evaluate and to resume with the same bytes.

    step: outer steps taken.
    config: as plain values.
    meta_params: MetaParams as a dictionary, (R, ...).
    optimizers: state of each outer optimiser, by the name of its group, of the learned tensor and of torch.optim.
    generators, noise_generators: states of the random streams, (R, size); the latter (0, size) without weight noise.
    loss_sum, skipped_tasks: sums since the last line of metrics.jsonl, (R,).
    diverged: the outer step at which each run diverged, 0 for active runs, (R,).
    versions: of maml and torch.
    """
    optimizers = state.optimizers.items()
    return {
        "step": state.step,
        "config": to_dict(config),
        "meta_params": state.meta_params._asdict(),
        "optimizers": {name: save_state(outer, _keys(state.meta_params, outer)) for name, outer in optimizers},
        "generators": save_generators(state.generators),
        "noise_generators": save_generators(state.noise_generators),
        "loss_sum": state.loss_sum,
        "skipped_tasks": state.skipped_tasks,
        "diverged": state.diverged,
        "versions": {"maml": __version__, "torch": torch.__version__},
    }


def restore_state(config: Config, experiment: Experiment, contents: dict[str, Any]) -> TrainState:
    """The state that `snapshot` saved as `contents`, which have the schema of checkpoints; raises CheckpointError if
    they do not fit `config`. Every tensor is checked before anything computes with it."""
    if contents.get("optimizers") is None:
        raise CheckpointError("evaluation-only checkpoint (no optimiser state): training cannot resume from it")
    meta_params = experiment.load_meta_params(contents["meta_params"])
    optimizers = _optimizers(config, experiment, meta_params)
    step, diverged, saved = contents["step"], contents["diverged"].clone(), contents["optimizers"]
    if saved.keys() != optimizers.keys():
        raise CheckpointError("the optimiser state is not of the tensors that its config learns")
    for name, outer in optimizers.items():
        load_state(outer, saved[name], keys=_keys(meta_params, outer), step=step, diverged=diverged)
    return TrainState(
        meta_params,
        optimizers,
        restore_generators(contents["generators"], config.seeds, "tasks"),
        step=step,
        loss_sum=contents["loss_sum"].clone(),
        skipped_tasks=contents["skipped_tasks"].clone(),
        diverged=diverged,
        noise_generators=restore_generators(contents["noise_generators"], _noise_seeds(config), "noise"),
    )


def _noise_seeds(config: Config) -> list[int]:
    """The seeds of the runs that have weight noise: all or none."""
    return config.seeds if config.outer.weight_noise else []


def _optimizers(config: Config, experiment: Experiment, meta_params: MetaParams) -> dict[str, OuterOptimizer]:
    """An outer optimiser for the parameters and for each learned group of the update rule; alpha may have its own."""
    outer, alpha = config.outer, config.inner.alpha
    groups = {"params": [*meta_params.params.values()]}
    groups |= {
        name: [meta_params.rule_params[key] for key in keys] for name, keys in experiment.learned_keys.items() if keys
    }
    choices = dict.fromkeys(groups, (outer.optimizer, outer.lr))
    if "alpha" in groups:
        choices["alpha"] = (alpha.optimizer or outer.optimizer, alpha.lr or outer.lr)
    return {name: make_outer_optimizer(kind, groups[name], lr) for name, (kind, lr) in choices.items()}


def _keys(meta_params: MetaParams, outer: OuterOptimizer) -> list[str]:
    """The keys in `meta_params` of the tensors that `outer` updates."""
    keys = {id(tensor): key for section in meta_params for key, tensor in section.items()}
    return [keys[id(tensor)] for tensor in outer.tensors()]
