"""Warm starts: the parameters of a trained run as the initial parameters of a new training.

Optimiser state, random streams and the count of outer steps are those of any new training.
"""

import hashlib
import json
from operator import attrgetter
from pathlib import Path
from typing import NamedTuple

import torch

from maml_cli.config import Config, override
from maml_cli.core import MetaParams, Params
from maml_cli.errors import CheckpointError, ConfigError, FileError
from maml_cli.experiment import Experiment, build_experiment
from maml_cli.runs import Checkpoint, open_checkpoint

KEYS = ("model.hidden", "model.num_context", "model.context_learned", "model.oracle", "model.activation")
"""The keys that give a network its shape and the meaning of its parameters: they must be those of the trained run."""


class WarmStart(NamedTuple):
    """The initial values that a training takes over from a trained run.

    config: of the training, with the digest of the parameters of that run in run.init_sha256.
    meta_params: the values taken over, (R, ...), in the dtype of `config`, on the CPU; rule parameters that are not
        among them start as the config says.
    summary: the run, its outer step, and what is not taken over as it is.
    """

    config: Config
    meta_params: MetaParams
    summary: str


def read_warm_start(config: Config) -> WarmStart | None:
    """The initial values of a training of `config` from the run in run.init_from; None for random ones.

    Raises FileError or CheckpointError if that run cannot be read, and ConfigError if it does not fit `config`, or has
    other parameters than those of run.init_sha256.
    """
    if config.run.init_from is None:
        return None
    try:
        source = open_checkpoint(Path(config.run.init_from))
        trained = build_experiment(source.config)
        saved = trained.load_meta_params(source.contents["meta_params"])
    except (FileError, CheckpointError) as error:
        raise type(error)(f"run.init_from: {error}") from None
    digest = meta_params_digest(saved)
    _check_fit(config, source, digest)
    experiment = build_experiment(config)
    params = _converted(saved.params, experiment)
    rule_params, notes = _rule_params(config, experiment, source.config, trained, saved.rule_params)
    if source.config.run.dtype != config.run.dtype:
        notes.insert(0, f"converted from {source.config.run.dtype} to {config.run.dtype}")
    return WarmStart(
        override(config, [f'run.init_sha256="{digest}"'], label="config"),
        MetaParams(params, _converted(rule_params, experiment)),
        "; ".join([f"from {source.label} at outer step {source.step:,}", *notes]),
    )


def meta_params_digest(meta_params: MetaParams) -> str:
    """SHA-256, in hexadecimal, of names, dtypes, shapes and values of all tensors, in the order of their names."""
    digest = hashlib.sha256()
    for section, group in meta_params._asdict().items():
        for key, tensor in sorted(group.items()):
            digest.update(f"{section} {key} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
            digest.update(tensor.numpy().tobytes())
    return digest.hexdigest()


def _check_fit(config: Config, source: Checkpoint, digest: str) -> None:
    """Raises ConfigError unless the parameters of `source`, which have `digest`, can be those of `config`."""
    different = [
        f"{key} {json.dumps(theirs)}, this config {json.dumps(ours)}"
        for key in KEYS
        if (theirs := attrgetter(key)(source.config)) != (ours := attrgetter(key)(config))
    ]
    if different:
        raise ConfigError(f"run.init_from: {source.label} has {'; '.join(different)}; they must be the same")
    diverged = [
        str(seed) for seed, step in zip(source.config.seeds, source.contents["diverged"].tolist(), strict=True) if step
    ]
    if diverged:
        seeds = f"seed{'s' if len(diverged) > 1 else ''} {', '.join(diverged)}"
        raise ConfigError(f"run.init_from: {seeds} of {source.label} diverged; give a run of which none did")
    trained, wanted = len(source.config.seeds), len(config.seeds)
    if trained not in (1, wanted):
        fitting = "1 seed" if wanted == 1 else f"1 seed, which starts all, or of {wanted:,}"
        raise ConfigError(
            f"run.init_from: {source.label} has {trained:,} seeds, this config {wanted:,}; give a run of {fitting}; or "
            f"set run.seeds={trained}"
        )
    if config.run.init_sha256 not in (None, digest):
        raise ConfigError(
            f"run.init_sha256: {source.label} at outer step {source.step:,} has other parameters than those of this "
            f"digest; give their checkpoint as run.init_from, or set run.init_sha256=null to start from these"
        )


def _converted(values: Params, experiment: Experiment) -> Params:
    """Copies of `values`, (1, ...) or (R, ...), for each of the R runs of `experiment` and in its dtype."""
    runs = len(next(iter(experiment.template.params.values())))
    return {
        key: value.expand(runs, *value.shape[1:]).to(experiment.dtype, memory_format=torch.contiguous_format, copy=True)
        for key, value in values.items()
    }


def _rule_params(
    config: Config, experiment: Experiment, source: Config, trained: Experiment, saved: Params
) -> tuple[Params, list[str]]:
    """The rule parameters in `saved` that are taken over, those that both runs learn, of equal shape and meaning; and a
    note for each kind that `experiment` learns."""
    values: Params = {}
    notes: list[str] = []
    for kind, keys in experiment.learned_keys.items():
        known = set(trained.learned_keys[kind])
        if kind == "alpha" and config.inner.alpha.sign != source.inner.alpha.sign:
            known = set()
        shapes = {key: value.shape[1:] for key, value in experiment.template.rule_params.items()}
        equal = [key for key in keys if key in known and saved[key].shape[1:] == shapes[key]]
        values |= {key: saved[key] for key in equal}
        if keys:
            notes.append(_note(kind, len(equal), len(keys)))
    return values, notes


def _note(kind: str, num_equal: int, num_learned: int) -> str:
    if num_equal == num_learned:
        return f"its learned {kind}"
    if num_equal:
        return f"{num_equal} of {num_learned} tensors of its learned {kind}, the others start as the config says"
    return f"{kind} starts as the config says, as that run learned none like it"
