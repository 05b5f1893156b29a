"""Default files of commands about trained runs: in the directory of the run, or in outputs/ under the names of the
runs, so that other runs have other files."""

import hashlib
import os
from collections.abc import Sequence
from pathlib import Path

from maml_cli.evaluation.trained_run import TrainedRun
from maml_cli.runs import OUTPUTS, published_names

MAX_NAMES = 50
"""Characters of the names of runs in the name of a file."""


def default_file(runs: Sequence[TrainedRun], ending: str) -> Path:
    """The file for a result about `runs`, whose name is `ending` or has it at the end.

    Of one run directory it is `ending` in it. Of a published run, a checkpoint outside of a run directory or several
    runs it is in outputs/, as in outputs/best-5shot-report.html and outputs/finn-10shot+mine-compare.png. Names that
    are longer than MAX_NAMES, or that other runs may have as well, are followed by a digest of the paths of the runs.
    """
    checkpoint = runs[0].checkpoint
    if len(runs) == 1 and checkpoint.run and not checkpoint.name:
        return checkpoint.run / ending
    paths = [Path(os.path.abspath(run.name)) for run in runs]
    names = "+".join(path.stem if path.is_file() else path.name for path in paths)
    if len(names) > MAX_NAMES or not all(map(_is_unique, runs)):
        texts = [run.checkpoint.name or str(path) for run, path in zip(runs, paths, strict=True)]
        digest = hashlib.sha256(os.fsencode("\n".join(texts))).hexdigest()[:8]
        names = f"{names[:MAX_NAMES].rstrip('+')}-{digest}"
    return OUTPUTS / f"{names}-{ending}"


def _is_unique(run: TrainedRun) -> bool:
    """Whether the name of `run` is that of no other: of a published run, or of a run directory in outputs/."""
    if run.checkpoint.name:
        return True
    path = Path(os.path.relpath(run.name))
    return path.parent == OUTPUTS and path.is_dir() and path.name not in published_names()
