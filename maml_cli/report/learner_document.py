"""A learner as plain values for the JavaScript of a report, learner.js: numbers in base64, choices by their names."""

import base64
import sys
from typing import Any

from torch import Tensor

from maml_cli.core import MetaParams, select_run, tensors
from maml_cli.evaluation import TrainedRun

MAX_VALUES = 200_000
"""Largest number of parameters of a learner in a page: 1.1 MB, and an inner step within some ten milliseconds."""


def learner_document(run: TrainedRun, *, most_values: int = MAX_VALUES) -> dict[str, Any]:
    """The learner of the first seed that has not diverged, as `Learner.load` of learner.js takes it.

    A learner that the page cannot run is `{"name": ..., "reason": ...}`: an oracle network, and one of more than
    `most_values` parameters.
    """
    config, inner = run.config, run.config.inner
    meta_params = select_run(run.meta_params, run.first_index)
    if reason := _reason_against(run, meta_params, most_values):
        return {"name": run.name, "reason": reason}
    groups = dict(run.experiment.alpha_groups)
    return {
        "name": run.name,
        "seed": next(iter(run.run_index)),
        "numSeeds": len(run.run_index),
        "layers": [key.removesuffix(".w") for key in meta_params.params if key.endswith(".w")],
        "activation": config.model.activation,
        "numContext": config.model.num_context,
        "loss": inner.loss,
        "optimizer": inner.optimizer,
        "momentum": inner.momentum,
        "clipNorm": inner.clip_norm,
        "clipValue": inner.clip_value,
        "curvature": inner.curvature,
        "head": inner.head,
        "proximal": inner.proximal,
        "adapted": [*groups],
        "alphaGroups": groups,
        "alphaSign": inner.alpha.sign,
        "alphaScale": inner.alpha.scale,
        "afterLastStep": inner.alpha.after_last_step,
        "stepsWithParams": inner.steps if inner.has_per_step_params else 0,
        "trainedSteps": config.trained_steps,
        "maxSteps": run.resolve_steps(None, max(10, inner.steps)),
        "scaling": run.experiment.family.scaling._asdict(),
        "params": {key: _encode(value.unsqueeze(1)) for key, value in meta_params.params.items()},
        "rule": {key: _encode(value) for key, value in meta_params.rule_params.items()},
    }


def _reason_against(run: TrainedRun, meta_params: MetaParams, most_values: int) -> str:
    """The reason why the page cannot run a learner; empty if it can."""
    if run.config.model.oracle:
        return "an oracle network needs amplitude, frequency and phase of each task, which dragged points do not tell"
    if (count := sum(value.numel() for value in tensors(meta_params))) > most_values:
        return f"its {count:,} learned values make the page too large"
    return ""


def _encode(value: Tensor) -> dict[str, Any]:
    """A tensor (1, S, rows, columns) as shape, type and little-endian bytes in base64."""
    array = value[0].cpu().contiguous()
    data = array.numpy()
    data = data.byteswap() if sys.byteorder == "big" else data
    return {
        "shape": [*array.shape],
        "type": str(array.dtype).removeprefix("torch."),
        "data": base64.b64encode(data.tobytes()).decode("ascii"),
    }
