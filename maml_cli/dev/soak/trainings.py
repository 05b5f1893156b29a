"""Random valid configs, really trained, resumed, evaluated and drawn."""

import random
from collections.abc import Iterator
from pathlib import Path

from maml_cli.config import load_config
from maml_cli.dev.soak.processes import maml
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally, scaled
from maml_cli.dev.soak.trained import fingerprint, remove
from maml_cli.errors import ConfigError
from maml_cli.runs import directory

CONFIGS = 300
SMALL = (
    "outer.steps=4",
    "run.checkpoint_every=2",
    "run.eval_tasks=4",
    "run.log_every=1",
    "run.eval_every=2",
    "outer.tasks_per_step=3",
    "model.hidden=[6]",
)
VALUES: dict[str, tuple[object, ...]] = {
    "tasks.amplitude": (1, [0.1, 5], [-3, 3], [0, 1e4]),
    "tasks.frequency": (1, [0.5, 2], [1, 30]),
    "tasks.phase": (0, [0, 3.14], [-100, 100]),
    "tasks.offset": ([0, 0], [-2, 2]),
    "tasks.x": ([-5, 5], [0, 1e-3], [-1e3, 1e3]),
    "tasks.noise": (0, 0.1, 10),
    "tasks.num_support": (1, 2, 10, 100, [2, 7]),
    "tasks.num_query": (1, 2, 10, 100),
    "tasks.query_sampling": ("uniform", "stratified"),
    "model.hidden": ([], [1], [40, 40], [3, 3, 3, 3]),
    "model.activation": ("relu", "tanh", "silu", "gelu", "softplus", "sigmoid", "sin"),
    "model.init": ("lecun_normal", "he_normal", "glorot_uniform", "uniform", "torch", "truncated_normal"),
    "model.init_gain": (1e-6, 1, 100),
    "model.num_context": (0, 1, 5),
    "model.context_learned": (False, True),
    "model.oracle": (False, True),
    "inner.steps": (1, 2, 5, 12),
    "inner.loss": ("mse", "half_mse", "l1", "huber"),
    "inner.adapt": ("all", "head", "body", "context"),
    "inner.optimizer": ("sgd", "adam"),
    "inner.momentum": (0, 0.9),
    "inner.clip_norm": ("null", 1, 50),
    "inner.clip_value": ("null", 0.1, 10),
    "inner.head": ("gradient", "ridge"),
    "inner.ridge.init": (1e-8, 0.02, 1e6),
    "inner.ridge.learned": (False, True),
    "inner.ridge.per": ("scalar", "feature"),
    "inner.ridge.noise": ("null", 2e-3, 1),
    "inner.curvature": ("none", "kronecker"),
    "inner.curvature_per_step": (False, True),
    "inner.proximal": (0, 0.1, 3),
    "inner.order": ("second", "first", "implicit"),
    "inner.first_order_until": (0, 2, 9),
    "inner.recompute_activations": (False, True),
    "inner.alpha.init": (1e-6, 0.01, 0.5, [0.005, 0.1]),
    "inner.alpha.learned": (False, True),
    "inner.alpha.per": ("scalar", "layer", "tensor", "parameter"),
    "inner.alpha.per_step": (False, True),
    "inner.alpha.after_last_step": ("null", "hold", "decay", "stop"),
    "inner.alpha.sign": ("free", "positive"),
    "outer.optimizer": ("adam", "adamw", "rmsprop", "sgd", "momentum"),
    "outer.lr": (1e-6, 1e-3, 0.1),
    "outer.schedule": ("constant", "linear", "cosine"),
    "outer.meta_gradient": ("query", "reptile", "joint"),
    "outer.multi_step_loss_until": (0, 2, 9),
    "outer.weight_noise": (0, 0.01),
    "outer.clip_task_norm": ("null", 1),
    "outer.clip_norm": ("null", 1),
    "outer.tasks_per_step": (1, 3, 25),
    "run.seed": (0, 2**62),
    "run.seeds": ("null", 2, [4, 1]),
    "run.engine": ("auto", "eager", "reference"),
    "run.dtype": ("float32", "float64"),
}
"""Values of keys that a training of a fraction of a second can have."""
KINDS = ("fit", "curve", "steps")
"""Figures of every run, of which one is drawn of each."""


def attack(scratch: Path, *, scale: float) -> SoakRow:
    """Train random configs, resume each from its middle, evaluate and draw it.

    A training may diverge; everything else must succeed, and the resumed training must have the same bytes.
    """
    tally = Tally(f"{CONFIGS} random valid configs: trained, resumed, evaluated, drawn")
    for number, settings in zip(range(scaled(CONFIGS, scale)), random_settings(random.Random(0)), strict=False):
        folder = scratch / str(number)
        folder.mkdir()
        _train_and_read(tally, folder, settings, full=scale >= 0.1)
        remove(folder)
    return tally.row()


def random_settings(choices: random.Random) -> Iterator[list[str]]:
    """Lists of `key=value` that make a valid config, without end: some keys of VALUES, those that fit together."""
    while True:
        chosen = list(SMALL)
        for key in choices.sample(sorted(VALUES), k=choices.randint(1, 25)):
            setting = f"{key}={choices.choice(VALUES[key])}"
            try:
                load_config("smoke", [*chosen, setting])
            except ConfigError:
                continue
            chosen.append(setting)
        yield chosen


def _train_and_read(tally: Tally, folder: Path, settings: list[str], *, full: bool) -> None:
    line, kind = " ".join(settings[len(SMALL) :]), KINDS[int(folder.name) % len(KINDS)]
    tally.tries += 1
    outcome = maml(["train", "-c", "smoke", *(f"--set={setting}" for setting in settings), "-q"], folder)
    if not tally.check_end(outcome, {0, 5}, f"train {line}") or outcome.code:
        return
    run = folder / outcome.out.strip()
    expected = fingerprint(run)
    tally.tries += 1
    directory.checkpoint_file(run, 4).unlink()
    outcome = maml(["train", "--resume", directory.checkpoint_file(run, 2), "-q"], folder)
    if tally.check_end(outcome, {0}, f"resume {line}") and fingerprint(run) != expected:
        tally.fail("changed", f"resume {line}: other bytes")
    commands = [["eval", run, "--tasks", "20", "--json"], ["plot", run, "--tasks", "20", "--kind", kind]]
    for command in commands if full else commands[:1]:
        tally.tries += 1
        tally.check_end(maml(command, folder), {0}, f"{command[0]} {line}")
