"""Run directories at a glance: config, state, outer steps and last validation error, read without PyTorch.

The digest of the newest checkpoint is verified, unless it is large; the values inside are not looked at.
"""

import functools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, NamedTuple

from maml_cli.config import Config, changed_keys, load_quickly, locate_table, presets, to_dict
from maml_cli.errors import CheckpointError, ConfigError, FileError
from maml_cli.reading import sha256_of
from maml_cli.runs.files import is_locked, read_last_record
from maml_cli.runs.listing import LAST, checkpoint_files, newest_checkpoint, read_checksums, step_of
from maml_cli.runs.metrics import METRICS, read_last_evaluation
from maml_cli.runs.newest import CONFIG, last_change
from maml_cli.runs.timing import Timing, read_timing

State = Literal["done", "training", "interrupted", "diverged", "damaged"]
STATES: tuple[State, ...] = ("done", "training", "interrupted", "diverged", "damaged")
VERIFIED_BYTES = 2**20
"""Largest checkpoint whose digest is verified."""


class RunOverview(NamedTuple):
    """A run directory at a glance.

    path: of the directory.
    name: of the directory.
    preset: that of the run's name, NAME, NAME-2 or NAME-seed1; else the one from which the fewest keys differ; empty if
        none is as close as the defaults.
    changes: the values by dotted key that differ from those of the preset, or else from the defaults.
    config: nested dictionaries of plain values; None if config.yaml is missing or invalid.
    state: `done`; `training`: a process has locked it; `interrupted` before its last outer step; `diverged`: all its
        seeds; `damaged`: see `problem`.
    step: outer steps that are saved, of a run in training those in its log, of a diverged one the step at fault.
    num_steps: planned outer steps; None without a config.
    error: on the validation tasks, after all inner steps, mean over the grid and the seeds that did not diverge:
        absolute for a run trained on L1, else squared. From the last line with an evaluation; None without one.
    engine: that of the last process that trained, or else that of the config.
    versions: of maml and PyTorch in that process, in words; empty if they are not recorded.
    changed: time at which training last wrote to it, in seconds since the epoch.
    problem: for a damaged run, the first problem in words; else empty.
    """

    path: Path
    name: str
    preset: str
    changes: Mapping[str, Any]
    config: Mapping[str, Any] | None
    state: State
    step: int
    num_steps: int | None
    error: float | None
    engine: str
    versions: str
    changed: float
    problem: str


def read_overview(run: Path) -> RunOverview:
    """The overview of a run directory, whatever is in it: each file that cannot be read makes it a damaged one."""
    name = run.absolute().name
    problems: list[str] = []
    config = _read_config(run, problems)
    saved = _saved_step(run, problems)
    timing, logged = _read_logs(run, problems)
    state = _state(run, config, saved, timing, problems)
    values = to_dict(config) if config else None
    preset = _preset_of(name) or (_closest_preset(values) if values else "")
    return RunOverview(
        run,
        name,
        preset,
        changed_keys(values, _base(preset)) if values else {},
        values,
        state,
        _step(state, saved, logged, timing),
        config.outer.steps if config else None,
        _validation_error(run, config) if config else None,
        timing.engine or (config.run.engine if config else ""),
        timing.versions,
        last_change(run),
        problems[0] if state == "damaged" else "",
    )


def _preset_of(name: str) -> str:
    candidates = (name, re.sub(r"-(seed)?\d+$", "", name))
    return next((candidate for candidate in candidates if candidate in _preset_names()), "")


def _closest_preset(values: Mapping[str, Any]) -> str:
    """The preset from which the fewest keys differ; empty if from the defaults no more do."""
    return min(("", *sorted(_preset_names())), key=lambda preset: len(changed_keys(values, _base(preset))))


@functools.cache
def _preset_names() -> frozenset[str]:
    return frozenset(presets.names())


@functools.cache
def _base(preset: str) -> Mapping[str, Any]:
    """The values of a preset, of the defaults for the empty name."""
    if not preset:
        return to_dict(Config())
    file = presets.path(preset)
    return to_dict(locate_table(load_quickly(file), file.parent))


def _read_config(run: Path, problems: list[str]) -> Config | None:
    try:
        return load_quickly(run / CONFIG)
    except (ConfigError, FileError) as error:
        problems.append(error.lines[0])
        return None


def _saved_step(run: Path, problems: list[str]) -> int:
    """The outer step of the newest checkpoint, 0 without one; its problems are appended."""
    try:
        if not checkpoint_files(run):
            if (run / LAST).exists():
                problems.append(f"{run}: the checkpoint that {LAST} names is missing")
            return 0
        file, warnings = newest_checkpoint(run)
        problems += warnings
        digest = read_checksums(run).get(file.name)
        size = file.stat().st_size
        if size == 0 or (digest and size <= VERIFIED_BYTES and sha256_of(file) != digest):
            problems.append(f"{file}: damaged: another SHA-256 than that of its run")
        return step_of(file) or 0
    except (CheckpointError, FileError) as error:
        problems.append(error.lines[0])
    except OSError as error:
        problems.append(f"{run}: {error.strerror}")
    return 0


def _read_logs(run: Path, problems: list[str]) -> tuple[Timing, int]:
    """The engine and the divergence in timing.jsonl, and the last outer step in metrics.jsonl."""
    try:
        last = read_last_record(run / METRICS)
        return read_timing(run), last["step"] if last else 0
    except FileError as error:
        problems.append(error.lines[0])
        return Timing(), 0


def _state(run: Path, config: Config | None, saved: int, timing: Timing, problems: list[str]) -> State:
    if is_locked(run / ".lock"):
        return "training"
    if problems or config is None:
        return "damaged"
    if saved >= config.outer.steps:
        return "done"
    return "interrupted" if timing.diverged_step is None else "diverged"


def _step(state: State, saved: int, logged: int, timing: Timing) -> int:
    if state == "training":
        return max(saved, logged)
    return timing.diverged_step if state == "diverged" and timing.diverged_step is not None else saved


def _validation_error(run: Path, config: Config) -> float | None:
    try:
        record = read_last_evaluation(run)
    except FileError:
        return None
    if record is None:
        return None
    by_run = record.grid_mae if config.inner.loss == "l1" else record.grid_mse
    errors = [errors[-1] for errors in by_run if not all(map(math.isnan, errors))]
    finite = [math.inf if math.isnan(error) else error for error in errors]
    return math.fsum(finite) / len(finite) if finite else None
