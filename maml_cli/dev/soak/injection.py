"""NaN and Inf in the loss, the gradient and the update of outer steps of every engine.

What is injected, and where, is said at POISONS.
"""

import copy
import random
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import torch

from maml_cli.config import Config, load_config
from maml_cli.dev.soak.poison import OPTIONS, POISONS, Injection, PoisonedEngine, install
from maml_cli.dev.soak.processes import maml
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally, scaled
from maml_cli.dev.soak.trained import SHORT, remove
from maml_cli.engines import ENGINES, Engine, unsupported
from maml_cli.experiment import Experiment, build_experiment
from maml_cli.runs import checkpoint, checkpoint_files
from maml_cli.training import init_state, snapshot

INJECTIONS = 8
"""Random outer steps for each engine, number of seeds and poison, besides the first and the last."""
NUM_SEEDS = (1, 3)
CPU = torch.device("cpu")
Contents = dict[str, Any]
"""The contents of a checkpoint."""


class PoisonedTraining(NamedTuple):
    """A training whose engine can be poisoned.

    config: its config.
    arguments: of `maml`.
    engine: the engine, made once.
    undisturbed: the run without an injection.
    states: the contents of checkpoints after each outer step, from 0, without an injection.
    """

    config: Config
    arguments: Sequence[str]
    engine: PoisonedEngine
    undisturbed: Path
    states: Sequence[Contents]


def attack(scratch: Path, *, scale: float) -> SoakRow:
    """Poison an outer step of trainings with one seed and with several; in a short form, of `eager` alone, as others
    take seconds to compile, and by a half of the poisons for each number of seeds.

    With one seed the training ends with exit code 5 and a message that names the outer step and the cause, and its
    files are those of the undisturbed run before that step. With several the poisoned run is frozen as it was before
    the outer step, and everything of the others has the bytes of the undisturbed run.
    """
    tally, stream = Tally("NaN and Inf in loss, gradient and update, all engines"), random.Random(0)
    is_full = scale >= 0.1
    for engine in ENGINES if is_full else ("eager",):
        for num_seeds in NUM_SEEDS:
            training = _make_training(scratch / f"{engine}-{num_seeds}", engine, num_seeds)
            if training is None:
                continue
            last = training.config.outer.steps
            poisons = [*POISONS] if is_full else [*POISONS][NUM_SEEDS.index(num_seeds) :: len(NUM_SEEDS)]
            for poison in poisons:
                steps = [stream.randint(1, last) for _ in range(scaled(INJECTIONS, scale))]
                for step in [*steps, 1, last] if is_full else steps:
                    inject(tally, training, Injection(poison, step, stream.randrange(num_seeds)))
    return tally.row()


def inject(tally: Tally, training: PoisonedTraining, injection: Injection) -> None:
    """Train with `injection`; count the training if it does not end as it should."""
    tally.tries += 1
    seeds, (poison, step, run) = training.config.seeds, injection
    line = f"{training.config.run.engine}, {poison} of seed {seeds[run]} of {len(seeds)} at outer step {step}"
    folder = training.undisturbed.parent
    outcome = maml(
        [*training.arguments, "--out", "poisoned"], folder, prepare=partial(install, training.engine, injection)
    )
    code, message = 0, f"seed {seeds[run]} diverged at outer step {step} and is frozen; the others continued"
    if len(seeds) == 1:
        code, message = 5, f"diverged at outer step {step}: {POISONS[poison].problem}"
    if tally.check_end(outcome, {0, 5}, line):
        if outcome.code != code or message not in outcome.err:
            tally.fail("changed", f"{line}: exit code {outcome.code}: {outcome.err.strip()[:200]}")
        elif difference := _difference(training, folder / "poisoned", injection):
            tally.fail("changed", f"{line}: {difference}")
    remove(folder / "poisoned")


def _difference(training: PoisonedTraining, poisoned: Path, injection: Injection) -> str:
    """The first difference of the files of `poisoned` from those that it should have; empty if there is none."""
    actual = {file.name: file.read_bytes() for file in checkpoint_files(poisoned)}
    expected = {file.name: file.read_bytes() for file in checkpoint_files(training.undisturbed)}
    steps = {name: int(name[5:-3]) for name in expected}
    if len(training.config.seeds) == 1:
        expected = {name: data for name, data in expected.items() if steps[name] < injection.step}
        metrics = (poisoned / "metrics.jsonl").read_bytes()
        if not (training.undisturbed / "metrics.jsonl").read_bytes().startswith(metrics):
            return "other bytes in metrics.jsonl"
    if actual.keys() != expected.keys():
        return f"checkpoints {', '.join(sorted(actual))} in place of {', '.join(sorted(expected))}"
    for name, data in expected.items():
        if steps[name] >= injection.step:
            every, last = training.config.run.log_every, training.config.outer.steps
            is_logged = steps[name] == last or steps[name] // every > (injection.step - 1) // every
            before = training.states[injection.step - 1]
            data = checkpoint.encode(_frozen(checkpoint.decode(data), before, injection, is_logged=is_logged))
        if actual[name] != data:
            return f"other bytes in {name}"
    return ""


def _frozen(undisturbed: Contents, before: Contents, injection: Injection, *, is_logged: bool) -> Contents:
    """The contents `undisturbed` where the run of `injection` has the values, moments and sums of `before`.

    is_logged: whether a line of the log was written since the outer step of `injection`, which resets the sums.
    """
    contents, run = copy.deepcopy(undisturbed), injection.run
    contents["diverged"][run] = injection.step
    for section, tensors in contents["meta_params"].items():
        for key, tensor in tensors.items():
            tensor[run] = before["meta_params"][section][key][run]
    for group, by_tensor in contents["optimizers"].items():
        for key, moments in by_tensor.items():
            for name, moment in moments.items():
                if moment.dim():  # not the count of steps
                    old = before["optimizers"][group][key].get(name)
                    moment[run] = 0 if old is None else old[run]
    for name in ("loss_sum", "skipped_tasks"):
        contents[name][run] = 0 if is_logged else before[name][run]
    return contents


def _make_training(folder: Path, engine: str, num_seeds: int) -> PoisonedTraining | None:
    """A training of `num_seeds` with `engine`, whose undisturbed run is in `folder`; None where it is not supported."""
    options = [*SHORT, *OPTIONS, f"--set=run.engine={engine}", f"--set=run.seeds={num_seeds}", "--set=run.device=cpu"]
    config = load_config("smoke", [option.removeprefix("--set=") for option in options if "--set=" in option]).config
    if unsupported(engine, config, CPU) is not None:
        return None
    experiment = build_experiment(config)
    poisoned = PoisonedEngine(ENGINES[engine].make, config, experiment)
    states = _undisturbed_states(config, experiment, poisoned)  # compiles, before processes are forked
    folder.mkdir()
    arguments = ["train", *options, "-q"]
    outcome = maml([*arguments, "--out", "undisturbed"], folder, prepare=partial(install, poisoned, None))
    if outcome.code:
        raise RuntimeError(f"an undisturbed training failed: {outcome.err}")
    return PoisonedTraining(config, arguments, poisoned, folder / "undisturbed", states)


def _undisturbed_states(config: Config, experiment: Experiment, engine: Engine) -> list[Contents]:
    """The contents of checkpoints after each outer step, from 0; the sums are reset where a line is logged."""
    state = init_state(config, experiment)
    states = [copy.deepcopy(snapshot(config, state))]
    while state.step < config.outer.steps:
        engine(state, 1)
        if state.step % config.run.log_every == 0:
            state.loss_sum.zero_()
            state.skipped_tasks.zero_()
        states.append(copy.deepcopy(snapshot(config, state)))
    return states
