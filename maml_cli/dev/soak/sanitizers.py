"""The kernel under sanitizers: the cases of the conformance suite, networks of other shapes, and hostile calls."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from maml_cli.config import Config
from maml_cli.dev.soak.hostile_calls import hostile_calls
from maml_cli.dev.soak.kernel_driver import SANITIZERS, build_driver, contents, has_sanitizer, replay
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally, scaled
from maml_cli.engines import native, unsupported
from maml_cli.engines.kernel_call import CallArgs, PackedCall, pack_call
from maml_cli.engines.kernel_spec import KernelSpec, kernel_spec
from maml_cli.experiment import build_experiment
from maml_cli.tasks import make_generator
from maml_cli.training import init_state
from tests.conformance import COMBINATIONS, combined_config

CPU = torch.device("cpu")
SHAPES: Sequence[Mapping[str, Mapping[str, Any]]] = (
    {"model": {"hidden": [3]}, "inner": {"loss": "l1", "alpha": {"learned": True}}},
    {"model": {"hidden": [37], "activation": "silu"}, "inner": {"loss": "huber", "steps": 2}},
    {"model": {"hidden": []}, "inner": {"steps": 2, "adapt": "head"}},
    {"model": {"hidden": [9, 17, 5], "activation": "sin"}, "inner": {"steps": 2, "alpha": {"learned": True}}},
    {"model": {"hidden": [8, 8], "activation": "softplus"}, "inner": {"adapt": "body"}},
    {"model": {"hidden": [16], "activation": "sigmoid"}, "inner": {"steps": 2}},
)
"""Networks, activations and losses that the conformance suite lacks, in float32; the smallest first."""
FIRST_STEP, NUM_STEPS = 3, 3
"""Outer steps of a call: the schedules of the conformance suite change within them."""
VARIANTS = ("plain", "noise", "clipping", "divergence", "skipped tasks")
RUNS_AND_THREADS = [(runs, threads) for threads in (*range(2, 13), 1) for runs in (1, 3, 40)]
"""Their number and that of the variants have no common divisor, so that each pair meets each variant."""


def attack(scratch: Path, *, scale: float) -> SoakRow:
    """Calls of kernels under sanitizers: no report, the bytes of the ordinary kernel, and an error if hostile."""
    tally = Tally("the kernel under address, undefined-behaviour and thread sanitizers")
    sanitizers = {name: flags for name, flags in SANITIZERS.items() if has_sanitizer(flags, scratch)}
    if missing := SANITIZERS.keys() - sanitizers:
        tally.attack += f" (skipped: the compiler lacks {', '.join(sorted(missing))})"
    circumstances = zip(itertools.cycle(RUNS_AND_THREADS), itertools.cycle(VARIANTS), strict=True)
    kernels = kernels_and_configs() if sanitizers else []
    for spec, configs in kernels[: scaled(len(kernels), scale)]:
        calls = dict[str, PackedCall]()
        for config in configs:
            for (num_runs, threads), variant in itertools.islice(circumstances, len(VARIANTS)):
                description = f"call {len(calls)}, {num_runs} runs, {threads} threads, {variant}"
                calls[description] = make_call(config, num_runs, threads, variant)
        check_kernel(tally, scratch, spec, calls, sanitizers)
    return tally.row()


def kernels_and_configs() -> list[tuple[KernelSpec, list[Config]]]:
    """The kernels of the shapes and of the conformance suite, each with the configs that it is for."""
    shapes = [Config.model_validate({**shape, "run": {"device": "cpu"}}) for shape in SHAPES]
    kernels = dict[str, tuple[KernelSpec, list[Config]]]()
    for config in (*shapes, *map(combined_config, COMBINATIONS)):
        if unsupported("native", config, CPU) is None:
            spec = kernel_spec(config)
            kernels.setdefault(str(spec), (spec, []))[1].append(config)
    return list(kernels.values())


def make_call(config: Config, num_runs: int, num_threads: int, variant: str) -> PackedCall:
    """A call of the kernel for `config` with one of the VARIANTS; the second run, if there is one, is frozen."""
    config = config.model_copy(update={"run": config.run.model_copy(update={"seeds": num_runs})})
    experiment, stream = build_experiment(config), make_generator(7, "x")
    spec = kernel_spec(config)
    initial = init_state(config, experiment)
    batch = experiment.sample(initial.generators, num_steps=NUM_STEPS)
    state = native.pack_state(initial)
    state.values.add_(torch.randn(state.values.shape, generator=stream, dtype=state.values.dtype), alpha=0.02)
    state.active[1:2] = 0
    options = native.call_options(config, FIRST_STEP, NUM_STEPS, None)._replace(num_threads=num_threads)
    if variant == "noise":
        noise = torch.randn(NUM_STEPS, num_runs, spec.num_params, generator=stream, dtype=state.values.dtype)
        options = options._replace(noise=0.01 * noise)
    if variant == "clipping":
        options = options._replace(clip_norm=0.1, clip_task_norm=0.5, optimizers=("adamw", "sgd"))
    if variant == "divergence":
        batch.query.y[1, 0, -1] = torch.inf
    if variant == "skipped tasks":
        options = options._replace(clip_task_norm=0.5)
        batch.query.y[1, 0, -1], batch.query.y[2, -1] = torch.inf, torch.inf
    return pack_call(spec, batch, options, state)


def check_kernel(
    tally: Tally,
    scratch: Path,
    spec: KernelSpec,
    calls: Mapping[str, PackedCall],
    sanitizers: Mapping[str, Sequence[str]],
) -> None:
    """Make `calls`, and hostile ones, under each of the sanitizers; mutates the tally.

    The expected replies are those of the kernel without sanitizers, with one thread.
    """
    hostile = dict(hostile_calls(next(call for call in calls.values() if call.arrays["noise"] is not None)))
    undisturbed = replay(build_driver(spec, (), scratch / "kernel"), [*map(_with_one_thread, calls.values())])
    expected = dict(zip(calls, undisturbed, strict=True))
    for name, flags in sanitizers.items():
        driver = build_driver(spec, flags, scratch / name)
        replies = replay(driver, [*calls.values(), *hostile.values()])
        for description, reply in zip([*calls, *hostile], replies, strict=True):
            tally.tries += 1
            line = f"{name}: {description}, {spec}"
            if isinstance(reply, str):
                tally.fail("tracebacks", f"{line}: {reply}")
            elif description in hostile:
                if reply.code == 0 or reply.contents != contents(hostile[description]):
                    tally.fail("changed", f"{line}: not refused")
            elif reply != expected[description]:
                tally.fail("changed", f"{line}: other bytes than the kernel without sanitizers")


def _with_one_thread(call: PackedCall) -> PackedCall:
    args = CallArgs.from_buffer_copy(call.args)
    args.num_threads = 1
    return call._replace(args=args)
