"""Commands of the benchmark: wall-clock seconds of `maml` processes from start to end."""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

LIGHT_COMMANDS = (["--help"], ["config", "show", "finn-10shot"], ["presets"])
TRAINING = ["train", "-c", "finn-10shot", "-s", "run.device=cpu", "-q"]
EVALUATION = ["eval", "finn-10shot", "--tasks", "10000", "--steps", "10", "--device", "cpu", "--json"]
NO_CHANGES: Mapping[str, str] = {}
EVALUATION_LABEL = "`maml eval`, 10,000 tasks and 10 steps, beyond the import of torch"
FIRST_STEP_LABEL = "`maml train`, one outer step by `native`, never compiled before"
TRAINING_LABEL = "`maml train --config finn-10shot`"
MAX_SECONDS = {EVALUATION_LABEL: 1.0, FIRST_STEP_LABEL: 3.0, TRAINING_LABEL: 11.0}
"""Goals, by label; that of light commands is MAX_LIGHT_SECONDS."""
MAX_LIGHT_SECONDS = 0.25


def run_commands(*, rounds: int) -> dict[str, float]:
    """Seconds of commands, by label: light ones, an evaluation, a first outer step without any kernel, a training."""
    seconds = {f"`maml {' '.join(words)}`": command_seconds(words, repeats=rounds) for words in LIGHT_COMMANDS}
    beyond_torch = [
        command_seconds(EVALUATION, repeats=1) - process_seconds(["-c", "import torch"]) for _ in range(rounds)
    ]
    seconds[EVALUATION_LABEL] = statistics.median(beyond_torch)
    with tempfile.TemporaryDirectory() as folder:
        first = [*TRAINING, "-s", "outer.steps=1", "-s", "run.engine=native", "--out", f"{folder}/first"]
        kernels = {"MAML_CACHE": f"{folder}/kernels"}
        seconds[FIRST_STEP_LABEL] = command_seconds(first, repeats=1, environment=kernels)
        # By the kernel that was just compiled: it is in the cache in every training but the first.
        training = [*TRAINING, "--out", f"{folder}/training"]
        seconds[TRAINING_LABEL] = command_seconds(training, repeats=1, environment=kernels)
    return seconds


def command_seconds(arguments: Sequence[str], *, repeats: int, environment: Mapping[str, str] = NO_CHANGES) -> float:
    """The least wall-clock time of `repeats` runs of a `maml` command, with changes to the environment."""
    return min(process_seconds(["-m", "maml_cli", *arguments], environment) for _ in range(repeats))


def process_seconds(arguments: Sequence[str], environment: Mapping[str, str] = NO_CHANGES) -> float:
    """The wall-clock time of Python with `arguments`."""
    before = time.perf_counter()
    subprocess.run([sys.executable, *arguments], check=True, capture_output=True, env=os.environ | environment)
    return time.perf_counter() - before
