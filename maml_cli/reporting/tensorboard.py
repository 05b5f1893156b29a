"""Events of a training for TensorBoard: its log as scalars, learned alphas as histograms, and fits as images.

Only this module imports TensorBoard. Each seed has a directory of events of its own, in `tensorboard/` of the run.
Values that are null in metrics.jsonl, as those of a diverged seed, have no events.
"""

import contextlib
import math
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch

from maml_cli.config import Config, locate_table
from maml_cli.core import MetaParams
from maml_cli.experiment import Experiment, build_experiment
from maml_cli.reporting.format import plural
from maml_cli.runs import EvaluationRecord, LossRecord, directory
from maml_cli.training import Observer

NUM_FITS = 3
"""Validation tasks in an image of fits."""
MOST_IMAGES = 10
"""Images of fits of a seed: TensorBoard shows as many by default, and each takes 0.2 seconds to draw."""
DPI = 100
LARGEST_ALPHA = 1e19
"""Magnitude of alphas up to which SummaryWriter has bins for them."""


class _Events(NamedTuple):
    """The events of one seed.

    run: index of the seed on the axis of runs.
    writer: a SummaryWriter.
    """

    run: int
    writer: Any

    def add_scalars(self, step: int, scalars: Mapping[str, float]) -> None:
        """Write values by tag, those that are finite."""
        for tag, value in scalars.items():
            if math.isfinite(value):
                self.writer.add_scalar(tag, value, step)


@contextlib.contextmanager
def observe_training(config: Config, run: Path, step: int | None) -> Iterator[Observer]:
    """The observer that writes the events of a training of `config` in `run`, if `run.tensorboard` asks for it.

    Of a run that is resumed at outer step `step`, TensorBoard drops the events after it. Every event is on disk before
    training continues. Raises OSError with the directory if it cannot be written.
    """
    if not config.run.tensorboard:
        yield Observer()
        return
    from torch.utils.tensorboard import SummaryWriter

    first_step = 0 if step is None else step + 1
    folder, experiment = run / directory.TENSORBOARD, build_experiment(locate_table(config, run))
    with _quiet_threads(), contextlib.ExitStack() as stack:
        with _named_errors(folder):
            folders = [str(folder / f"seed-{seed}") for seed in config.seeds]
            writers = [stack.enter_context(SummaryWriter(name, purge_step=first_step)) for name in folders]
        runs = [_Events(index, writer) for index, writer in enumerate(writers)]

        @_named_errors(folder)
        def on_losses(record: LossRecord, rate: float) -> None:
            for events in runs:
                events.add_scalars(record.step, {**_loss_scalars(record, events.run), RATE: rate})
                events.writer.flush()

        @_named_errors(folder)
        def on_evaluation(record: EvaluationRecord, contents: Mapping[str, Any]) -> None:
            meta_params = experiment.load_meta_params(contents["meta_params"])
            for events in (events for events in runs if not contents["diverged"][events.run]):
                events.add_scalars(record.step, _evaluation_scalars(record, events.run))
                if config.inner.alpha.learned:
                    _add_alphas(events, record.step, experiment.alphas(meta_params.rule_params))
                if _has_image(config, record.step):
                    _add_fits(events, record.step, config, experiment, meta_params)
                events.writer.flush()

        yield Observer(on_losses, on_evaluation)


RATE = "training/outer_steps_per_second"


def _loss_scalars(record: LossRecord, index: int) -> dict[str, float]:
    """The values of one run in a loss record by tag, with a rate that is not its own."""
    scalars = {"training/loss": record.loss[index], "training/grad_norm": record.grad_norm[index]}
    if record.skipped_tasks is not None:
        scalars["training/skipped_tasks"] = record.skipped_tasks[index]
    for name, section in (("alpha_mean", record.alpha), ("alpha_grad", record.alpha_grad)):
        for key, by_run in section.items():
            scalars |= _by_inner_step(f"{name}/{key}", by_run[index], first=1)
    return scalars


def _evaluation_scalars(record: EvaluationRecord, index: int) -> dict[str, float]:
    """The validation errors of one run by tag, after each inner step."""
    scalars: dict[str, float] = {}
    for measure in ("mse", "mae"):
        scalars |= _by_inner_step(f"validation/{measure}", getattr(record, f"grid_{measure}")[index], first=0)
        scalars |= _by_inner_step(f"validation_query/{measure}", getattr(record, f"query_{measure}")[index], first=0)
    return scalars


def _by_inner_step(name: str, values: Sequence[Any], *, first: int) -> dict[str, Any]:
    """`values` by tag with the number of the inner step, from `first`, in as many digits as the last one has, so that
    tags sort in their order; alphas of all inner steps have no number.

    >>> _by_inner_step("mse", [4.0, 2.5], first=0)
    {'mse_step_0': 4.0, 'mse_step_1': 2.5}
    """
    if first and len(values) == 1:
        return {name: values[0]}
    digits = len(str(first + len(values) - 1))
    return {f"{name}_step_{first + index:0{digits}}": value for index, value in enumerate(values)}


def _add_alphas(events: _Events, step: int, alphas: Mapping[str, torch.Tensor]) -> None:
    """Histograms of the alphas of one run, of (R, S, in, out), for each key and inner step; those too large for the
    bins have none."""
    for key, value in alphas.items():
        for tag, by_element in _by_inner_step(f"alpha/{key}", [*value[events.run].double()], first=1).items():
            if by_element.abs().max() < LARGEST_ALPHA:
                events.writer.add_histogram(tag, by_element, step)


def _has_image(config: Config, step: int) -> bool:
    """Whether the evaluation after `step` outer steps has images: those at equal distances from the first, and the
    last, MOST_IMAGES in all at most."""
    every = config.run.eval_every * math.ceil(config.outer.steps / config.run.eval_every / (MOST_IMAGES - 1))
    return step % every == 0 or step == config.outer.steps


def _add_fits(events: _Events, step: int, config: Config, experiment: Experiment, meta_params: MetaParams) -> None:
    """The figure of `maml plot --kind fit`, of a few validation tasks of the run, as an image."""
    from maml_cli.evaluation import fit_validation_tasks
    from maml_cli.reporting.canvas import figure_pixels
    from maml_cli.reporting.figure_request import point_labels
    from maml_cli.reporting.figures import fit_figure

    fits = fit_validation_tasks(config, experiment, meta_params, events.run, count=NUM_FITS)
    steps, tasks = config.inner.steps, plural(len(fits), "validation task")
    pixels = figure_pixels(
        lambda: fit_figure(
            fits,
            show_steps=sorted({0, 1, config.trained_steps, steps}),
            trained_steps=config.trained_steps,
            measure=config.measure,
            title=f"{tasks}, K = {len(fits[0].support_x)}, outer step {step:,}",
            labels=point_labels(config),
        ),
        dpi=DPI,
    )
    image = torch.frombuffer(pixels, dtype=torch.uint8).view(len(pixels), -1, 4)
    events.writer.add_image("validation/fit", image, step, dataformats="HWC")


@contextlib.contextmanager
def _named_errors(folder: Path) -> Iterator[None]:
    """An OSError without a file, as those of SummaryWriter, gets `folder` as its file."""
    try:
        yield
    except OSError as error:
        error.filename = error.filename or str(folder)
        raise


@contextlib.contextmanager
def _quiet_threads() -> Iterator[None]:
    """The threads in which SummaryWriter writes print no traceback of an OSError, which it raises when it is called."""
    previous = threading.excepthook

    def report(failure: threading.ExceptHookArgs) -> None:
        if not (isinstance(failure.exc_value, OSError) and type(failure.thread).__module__.startswith("tensorboard.")):
            previous(failure)

    threading.excepthook = report
    try:
        yield
    finally:
        threading.excepthook = previous
