"""Resuming from every outer step, by every engine, with every kind of state that a checkpoint has."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import torch

from maml_cli.config import Config, load_config
from maml_cli.dev.soak.processes import maml
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally, scaled
from maml_cli.dev.soak.trained import fingerprint, fresh_copy, remove, train_undisturbed
from maml_cli.engines import ENGINES, Engine, make_engine, unsupported
from maml_cli.experiment import Experiment, build_experiment
from maml_cli.runs import directory, open_checkpoint
from maml_cli.training import Hooks, RunGroup, restore_state, train

STEPS = 500
COMMANDS = 40
"""Resumes that are also made by the command, to the last outer step."""
CPU = torch.device("cpu")
BASE = (
    "run.checkpoint_every=1",
    "run.log_every=3",
    "run.eval_every=70",
    "run.eval_tasks=4",
    "model.hidden=[8,8]",
    "outer.tasks_per_step=3",
    "tasks.num_support=5",
    "tasks.num_query=5",
)
COMBINATIONS: dict[str, Sequence[str]] = {
    "learned alpha with an optimiser of its own, clipping": (
        "inner.steps=2",
        "inner.alpha.learned=true",
        "inner.alpha.per=parameter",
        "inner.alpha.optimizer=momentum",
        "inner.alpha.lr=1e-3",
        "outer.schedule=cosine",
        "outer.clip_task_norm=5",
        "outer.clip_norm=1",
    ),
    "curvature, weight noise, seeds": (
        "inner.curvature=kronecker",
        "outer.weight_noise=0.01",
        "run.seeds=3",
        "outer.optimizer=rmsprop",
        "outer.schedule=linear",
    ),
    "annealed order, multi-step loss, per-step alpha": (
        "inner.steps=3",
        "inner.first_order_until=250",
        "outer.multi_step_loss_until=350",
        "inner.alpha.learned=true",
        "inner.alpha.per=layer",
        "inner.alpha.per_step=true",
        "inner.alpha.sign=positive",
        "outer.optimizer=adamw",
    ),
    "weight noise, seeds listed, annealed order": (
        "inner.steps=2",
        "inner.first_order_until=250",
        "outer.weight_noise=0.01",
        "run.seeds=[5,9]",
        "tasks.noise=0.1",
        "tasks.query_sampling=stratified",
    ),
    "head in closed form after clipped steps on the body": (
        "inner.steps=2",
        "inner.head=ridge",
        "inner.ridge.per=feature",
        "inner.clip_norm=5",
        "inner.curvature=kronecker",
        "inner.curvature_per_step=true",
        "outer.clip_task_norm=5",
    ),
}


def attack(scratch: Path, *, scale: float) -> SoakRow:
    """Resume from every outer step but the last and take the next one: its checkpoint and log have the same bytes."""
    tally = Tally(f"resumes from every step of {STEPS}, all engines")
    steps = scaled(STEPS, scale)
    is_full = scale >= 0.1
    for description, overrides in [*COMBINATIONS.items()][: None if is_full else 2]:
        for engine in ENGINES if is_full else ("eager",):
            options = [*BASE, *overrides, f"outer.steps={steps}", "run.device=cpu"]
            if unsupported(engine, load_config("smoke", options).config, CPU) is None:
                folder, line = scratch / f"{engine}-{len(description)}", f"{engine}, {description}"
                resume_from_every_step(tally, folder, [*options, f"run.engine={engine}"], line)
                remove(folder)
    return tally.row()


def resume_from_every_step(tally: Tally, folder: Path, options: Sequence[str], line: str) -> None:
    """Train with `options`, then resume the run at each of its checkpoints; mutates the tally."""
    arguments = ["--config=smoke", *(f"--set={option}" for option in options)]
    try:
        run, _ = train_undisturbed(folder, arguments)
    except RuntimeError as error:
        if "torch.compile fails on this config" in str(error):
            return  # refused with advice, as an engine that does not support the config
        tally.tries += 1
        tally.fail("tracebacks", f"{line}: {str(error).strip().splitlines()[-1][:200]}")
        return
    config = load_config("smoke", options).config
    experiment = build_experiment(config, CPU)
    engine = make_engine(config.run.engine, config, experiment)
    log = (run / "metrics.jsonl").read_bytes()
    for step in range(config.outer.steps):
        tally.tries += 1
        copy = _cut_run(run, folder / "copy", step)
        try:
            _take_next_step(config, experiment, engine, copy)
        except Exception as error:
            tally.fail("tracebacks", f"{line}, step {step}: {type(error).__name__}: {error}")
            continue
        same = directory.checkpoint_file(run, step + 1).read_bytes() == (
            directory.checkpoint_file(copy, step + 1).read_bytes()
        )
        if not same or not log.startswith((copy / "metrics.jsonl").read_bytes()):
            tally.fail("changed", f"{line}, step {step}: other bytes after the next outer step")
    every = max(1, len(COMBINATIONS) * len(ENGINES) * config.outer.steps // COMMANDS)
    expected = fingerprint(run)
    for step in range(every // 2, config.outer.steps, every):
        tally.tries += 1
        target = fresh_copy(run, folder / "command")
        for later in range(step + 1, config.outer.steps + 1):
            directory.checkpoint_file(target, later).unlink()
        outcome = maml(["train", "--resume", directory.checkpoint_file(target, step), "-q"], folder)
        if tally.check_end(outcome, {0}, f"{line}, step {step}, by the command") and fingerprint(target) != expected:
            tally.fail("changed", f"{line}, step {step}, by the command: other bytes at the end")


def _take_next_step(config: Config, experiment: Experiment, engine: Engine, run: Path) -> None:
    """Resume `run` as the command does, and stop after one outer step."""
    saved = open_checkpoint(run)
    state = restore_state(saved.config, experiment, saved.contents)
    directory.truncate_to(saved, run)
    group = RunGroup(config, experiment, state, engine)
    train(config, [group], run, hooks=Hooks(interrupted=lambda: state.step > saved.step))


def _cut_run(run: Path, copy: Path, step: int) -> Path:
    """A copy of `run` with the one checkpoint after `step` outer steps, and with the log of all."""
    remove(copy)
    (copy / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "metrics.jsonl", "timing.jsonl", "checkpoints/SHA256SUMS"):
        shutil.copy(run / name, copy / name)
    file = directory.checkpoint_file(copy, step)
    shutil.copy(directory.checkpoint_file(run, step), file)
    return copy
