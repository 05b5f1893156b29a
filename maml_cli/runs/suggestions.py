"""Hints for mistyped runs: the run directory or the published run that was probably meant."""

import difflib
import os
from pathlib import Path

from maml_cli.runs.files import OUTPUTS
from maml_cli.runs.published import published_names

MAX_COMPARED = 60
"""Characters of a name that are compared: difflib takes quadratic time."""
CUTOFF = 0.75
"""Least similarity, of difflib, of a name that is suggested."""


def did_you_mean(path: Path) -> str:
    """`; did you mean RUN?` for the path of a run that does not exist; empty if none is spelt alike.

    Runs are the directories beside it, and for a bare name also those in outputs/ and the published ones.
    """
    if os.path.lexists(path):
        return ""
    known = {name: path.parent / name for name in _directories(path.parent)}
    if path.parent == Path():
        known |= {name: Path(name) for name in published_names()}
        known |= {name: OUTPUTS / name for name in _directories(OUTPUTS)}
    close = difflib.get_close_matches(path.name[:MAX_COMPARED], known, 1, CUTOFF)
    return f"; did you mean {known[close[0]]}?" if close else ""


def _directories(folder: Path) -> list[str]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entry.name for entry in entries if entry.is_dir())
    except OSError:
        return []
