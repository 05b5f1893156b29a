"""The parameters of a learner as files of other programs: safetensors, numpy's npz, and torch.save."""

import io
import json
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor

from maml_cli.config import to_dict
from maml_cli.core import select_run
from maml_cli.errors import ConfigError
from maml_cli.evaluation.trained_run import TrainedRun

Encode = Callable[[dict[str, Tensor], str], bytes]
"""(name -> tensor, text about them) -> the bytes of a file."""


def encode_params(run: TrainedRun, file_format: str, *, seed: int | None = None) -> bytes:
    """The parameters of one seed as a file in `file_format`, a key of FORMATS.

    seed: of training; by default the first that has not diverged.

    Initial parameters are under their own names, `hidden0.w` (in, out) and `hidden0.b` (1, out): a layer is x W + b.
    Those of the update rule are `rule.alpha` and others, with an axis of inner steps in front. `about` is a JSON text:
    the config, the outer step and the seed. Raises ConfigError for a
    seed that the run does not have, and for safetensors where that package is missing.
    """
    seeds = run.checkpoint.config.seeds
    if seed is not None and seed not in seeds:
        raise ConfigError(f"--seed {seed}: the run has {'seed' if len(seeds) == 1 else 'seeds'} {_listed(seeds)}")
    index = run.first_index if seed is None else seeds.index(seed)
    params, rule_params = select_run(run.meta_params, index)
    tensors = {key: value[0].cpu().contiguous() for key, value in params.items()}
    tensors |= {f"rule.{key}": value[0].cpu().contiguous() for key, value in rule_params.items()}
    about = {
        "config": to_dict(run.checkpoint.config),
        "outer_step": run.checkpoint.step,
        "seed": seeds[index],
    }
    return FORMATS[file_format](tensors, json.dumps(about))


def _listed(seeds: Sequence[int]) -> str:
    return ", ".join(map(str, seeds[:8])) + (", ..." if len(seeds) > 8 else "")


def _safetensors(tensors: dict[str, Tensor], about: str) -> bytes:
    try:
        from safetensors.torch import save
    except ImportError:
        raise ConfigError(
            "--format safetensors: the package safetensors is not installed; pip install safetensors, or give npz"
        ) from None
    return bytes(save(tensors, {"about": about}))  # several entries would be in random order


def _npz(tensors: dict[str, Tensor], about: str) -> bytes:
    buffer = io.BytesIO()
    arrays: dict[str, Any] = {key: value.numpy() for key, value in tensors.items()}
    np.savez(buffer, about=np.array(about), **arrays)
    return buffer.getvalue()


def _torch(tensors: dict[str, Tensor], about: str) -> bytes:
    buffer = io.BytesIO()
    torch.save({**tensors, "about": about}, buffer)
    return buffer.getvalue()


FORMATS: dict[str, Encode] = {"safetensors": _safetensors, "npz": _npz, "torch": _torch}
"""Values of `--format`."""
