"""Advice after divergence: changes of the config that can act on the value that was not finite."""

from collections.abc import Iterator, Sequence
from typing import NamedTuple

from maml_cli.config import Config, override
from maml_cli.errors import ConfigError, DivergedError

USUAL_MAGNITUDE = 5.0
"""Magnitude of amplitude and x in the default family; beyond twice as much, the default magnitude is advised."""
LARGE_RATE = 1.0
"""Learning rate beyond which it is named first, and beyond which no clipping bounds the updates of Adam."""
LARGE_WEIGHT_NOISE = 1.0
"""Weight noise beyond the usual magnitude of weights, with which the first outer step may diverge."""


class Change(NamedTuple):
    """A change of the config: words for the user, and the text that `--set` takes."""

    words: str
    setting: str


def divergence_advice(config: Config, error: DivergedError) -> str:
    """One line that names the changes which can prevent `error`, each as a `--set`."""
    changes = divergence_changes(config, error)
    return in_words(changes) if changes else "no change of a single key of the config is known to prevent that"


def in_words(changes: Sequence[Change]) -> str:
    """Changes as a phrase: `try a lower alpha (--set inner.alpha.init=0.001) or ...`."""
    *first, last = [f"{change.words} (--set {change.setting})" for change in changes]
    return f"try {', '.join(first)} or {last}" if first else f"try {last}"


def divergence_changes(config: Config, error: DivergedError) -> list[Change]:
    """The changes that can prevent `error` and that the config accepts, the most promising first.

    An update that overflows is acted on by the outer learning rates and by clipping. At the first outer step nothing
    was updated yet: only changes of the inner loop, the initial parameters and the
    tasks can act, and skipping tasks whose gradient is not finite. From the second on, the outer learning rates and
    clipping act on the updates that led there. Where no such change is accepted, float64 may hold the values.
    """
    if error.cause == "update" and error.outer_step > 0:
        candidates = [*_rates(config)]
        if max(config.outer.lr, config.inner.alpha.lr or 0) <= LARGE_RATE or config.outer.optimizer == "sgd":
            candidates += [*_outer_clipping(config), *_task_clipping(config)]
    elif error.outer_step > 1:
        candidates = [*_inner_loop(config), *_outer_steps(config), *_task_clipping(config)]
    else:
        candidates = [*_smaller_tasks(config), *_large_weight_noise(config)] if error.outer_step else []
        candidates += _inner_loop(config)
        if error.cause == "gradient" and config.outer.clip_task_norm is None:
            candidates += _task_clipping(config)
        candidates.append(Change("a smaller initialisation", f"model.init_gain={smaller(config.model.init_gain, 1):g}"))
    wider = Change("the range of float64", "run.dtype=float64")
    return accepted(config, candidates) or accepted(config, [wider] if config.run.dtype == "float32" else [])


def _inner_loop(config: Config) -> Iterator[Change]:
    if config.trained_steps == 0:
        return
    yield lower_alpha(config)
    if config.inner.steps > 1:
        yield Change("fewer inner steps", f"inner.steps={config.inner.steps // 2}")


def lower_alpha(config: Config) -> Change:
    """A lower initial alpha, or lower ends of its range."""
    ends = [f"{value:g}" for value in dict.fromkeys(smaller(end, 0.01) for end in config.inner.alpha.init_range)]
    return Change("a lower alpha", f"inner.alpha.init={ends[0] if len(ends) == 1 else f'[{ends[0]},{ends[1]}]'}")


def _outer_steps(config: Config) -> Iterator[Change]:
    yield from _rates(config)
    yield from _outer_clipping(config)
    yield from _weight_noise(config)


def _large_weight_noise(config: Config) -> Iterator[Change]:
    if config.outer.weight_noise > LARGE_WEIGHT_NOISE:
        yield from _weight_noise(config)


def _weight_noise(config: Config) -> Iterator[Change]:
    if config.outer.weight_noise:
        yield Change("less weight noise", f"outer.weight_noise={smaller(config.outer.weight_noise, 0.01):g}")


def _rates(config: Config) -> Iterator[Change]:
    outer, alpha = config.outer, config.inner.alpha
    changes = [(outer.lr, Change("a lower outer learning rate", f"outer.lr={smaller(outer.lr, 0.001):g}"))]
    if alpha.learned and alpha.lr is not None:
        setting = f"inner.alpha.lr={smaller(alpha.lr, 0.001):g}"
        changes.append((alpha.lr, Change("a lower learning rate of alpha", setting)))
    if any(rate > LARGE_RATE for rate, _ in changes):  # that rate first
        changes.sort(key=lambda item: -item[0])
    yield from (change for _, change in changes)


def _outer_clipping(config: Config) -> Iterator[Change]:
    outer = config.outer
    clip = 1 if outer.clip_norm is None else outer.clip_norm / 10
    yield Change("clipping" if outer.clip_norm is None else "stronger clipping", f"outer.clip_norm={clip:g}")


def _task_clipping(config: Config) -> Iterator[Change]:
    """Clipping of each task's gradient, which also skips tasks that are not finite."""
    if config.outer.clip_task_norm is None:
        yield Change("clipping per task", "outer.clip_task_norm=10")
    else:
        yield Change("stronger clipping per task", f"outer.clip_task_norm={config.outer.clip_task_norm / 10:g}")


def _smaller_tasks(config: Config) -> Iterator[Change]:
    """Ranges of the usual magnitude where they are wider than twice that."""
    for key in ("amplitude", "offset", "x"):
        low, high = getattr(config.tasks, key)
        factor = max(abs(low), abs(high)) / USUAL_MAGNITUDE
        if factor > 2:
            yield Change("smaller tasks", f"tasks.{key}=[{low / factor:g},{high / factor:g}]")
    if config.tasks.noise > 2 * USUAL_MAGNITUDE:
        yield Change("less noise on the targets", f"tasks.noise={USUAL_MAGNITUDE:g}")


def accepted(config: Config, changes: Sequence[Change]) -> list[Change]:
    """The changes that `config` accepts."""
    return [change for change in changes if _is_accepted(config, change)]


def _is_accepted(config: Config, change: Change) -> bool:
    try:
        override(config, [change.setting], label="config")
    except ConfigError:
        return False
    return True


def smaller(value: float, usual: float) -> float:
    """A tenth of `value`, or the `usual` value where even a tenth is more than a thousand times as much."""
    return usual if value / 10 > 1000 * usual else value / 10
