"""The space of a sweep: the keys that vary and their values, read from options and checked by the config's schema."""

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

from maml_cli.config import Config, is_whole_number, override, parse_list, value_text
from maml_cli.errors import ConfigError, shorten

MAX_TRIALS = 10_000
"""Trials of one sweep at most: all of them are entered in its storage when it begins."""
MAX_PROBLEMS = 20
"""Lines of a message about combinations that are not valid."""
_RANGE = re.compile(r"(?P<low>.+?)\.\.(?P<high>.+?)(?P<log>:log)?")

Values = Mapping[str, str]
"""The values of a trial: key -> text of the value, as `--set` takes it."""


class Dimension(NamedTuple):
    """A key that varies.

    key: the key of the config.
    option: the option that gave it: --grid, --choose or --range.
    values: the texts of its values; empty for a range.
    low, high: ends of a range.
    is_log: whether the logarithm of the value is uniform on the range.
    is_whole: whether the values of a range are whole numbers.
    """

    key: str
    option: str
    values: tuple[str, ...] = ()
    low: float = 0
    high: float = 0
    is_log: bool = False
    is_whole: bool = False

    @property
    def text(self) -> str:
        """The values as the option takes them."""
        if self.values:
            return ",".join(self.values)
        return f"{value_text(self.low)}..{value_text(self.high)}{':log' if self.is_log else ''}"

    @property
    def extremes(self) -> tuple[str, ...]:
        """The values that the schema is asked about: all of a list, the ends of a range."""
        return self.values or (value_text(self.low), value_text(self.high))


class Space(NamedTuple):
    """The trials of a sweep.

    dimensions: the keys that vary.
    trials: number of trials that a sampler chooses; None for a grid, which has a trial for each combination.
    seed: of the sampler.
    """

    dimensions: tuple[Dimension, ...]
    trials: int | None = None
    seed: int = 0

    @property
    def num_trials(self) -> int:
        """The number of trials in all."""
        return self.trials or math.prod(len(dimension.values) for dimension in self.dimensions)

    @property
    def is_grid(self) -> bool:
        """Whether every combination is a trial."""
        return self.trials is None

    def combinations(self) -> Iterator[dict[str, str]]:
        """The values of each trial of a grid, the last key fastest."""
        keys = [dimension.key for dimension in self.dimensions]
        for values in itertools.product(*(dimension.values for dimension in self.dimensions)):
            yield dict(zip(keys, values, strict=True))


def read_space(
    *,
    grid: Sequence[str] = (),
    ranges: Sequence[str] = (),
    choose: Sequence[str] = (),
    trials: int | None = None,
    seed: int = 0,
) -> Space:
    """The space that the options of `maml sweep` describe, `KEY=V,V` or `KEY=LOW..HIGH:log`; raises ConfigError."""
    if grid and (ranges or choose or trials):
        raise ConfigError("--grid: all combinations are trained; leave out --trials, --range and --choose, or --grid")
    if not grid and not ranges and not choose:
        raise ConfigError("--grid: missing; give --grid KEY=VALUE,VALUE, or --trials N with --range or --choose")
    if not grid and trials is None:
        raise ConfigError("--trials: missing; --range and --choose need the number of trials")
    dimensions = [
        *(_read_values("--grid", text) for text in grid),
        *(_read_range(text) for text in ranges),
        *(_read_values("--choose", text) for text in choose),
    ]
    for dimension, other in itertools.combinations(dimensions, 2):
        if dimension.key == other.key:
            raise ConfigError(f"{other.option} {other.key}: given twice; give all of its values in one option")
    space = Space(tuple(dimensions), None if grid else trials, 0 if grid else seed)
    if space.num_trials > MAX_TRIALS:
        raise ConfigError(f"--grid: {space.num_trials:,} combinations; a sweep has at most {MAX_TRIALS:,} trials")
    return space


def trial_config(config: Config, values: Values, *, option: str = "--set") -> Config:
    """`config` with the values of a trial; raises ConfigError, also where validation errors would not be computed."""
    changed = override(config, [f"{key}={text}" for key, text in values.items()], label="config", option=option)
    if not changed.run.eval_every:
        raise ConfigError("run.eval_every: 0; a sweep compares validation errors: set run.eval_every from 1")
    return changed


def check_space(config: Config, space: Space) -> None:
    """Raises ConfigError with the problems of every combination of a grid, and of the values and ends of each key that
    a sampler varies."""
    settings: Iterator[tuple[str, Values]] = (
        (("--grid", values) for values in space.combinations())
        if space.is_grid
        else ((at.option, {at.key: text}) for at in space.dimensions for text in at.extremes)
    )
    problems: dict[str, None] = {}
    for option, values in settings:
        try:
            trial_config(config, values, option=option)
        except ConfigError as error:
            problems |= dict.fromkeys(error.lines)
    if problems:
        more = len(problems) - MAX_PROBLEMS
        raise ConfigError(*[*problems][:MAX_PROBLEMS], *([f"... and {more:,} more"] if more > 0 else []))


def _split(option: str, text: str, example: str) -> tuple[str, str]:
    key, equals, values = text.partition("=")
    if not equals or not key.strip() or not values.strip():
        raise ConfigError(f"{option} {shorten(text, 100)}: must be {example}")
    return key.strip(), values.strip()


def _read_values(option: str, text: str) -> Dimension:
    key, values = _split(option, text, "KEY=VALUE,VALUE, such as inner.steps=1,5")
    try:
        texts = tuple(map(value_text, parse_list(values)))
    except ValueError as error:
        raise ConfigError(f"{option} {shorten(text, 100)}: {error}") from None
    for value in texts:
        if texts.count(value) > 1:
            raise ConfigError(f"{option} {shorten(text, 100)}: {shorten(value, 60)} is given twice")
    return Dimension(key, option, texts)


def _read_range(text: str) -> Dimension:
    example = "KEY=LOW..HIGH or KEY=LOW..HIGH:log, such as inner.alpha.init=1e-3..1e-1:log"
    key, values = _split("--range", text, example)
    match = _RANGE.fullmatch(values)
    try:
        ends = parse_list(f"{match['low']},{match['high']}") if match else []
    except ValueError:
        ends = []
    where = f"--range {shorten(text, 100)}"
    if match is None or len(ends) != 2 or any(type(end) not in (int, float) or not math.isfinite(end) for end in ends):
        raise ConfigError(f"{where}: must be {example}")
    if ends[0] >= ends[1]:
        raise ConfigError(f"{where}: must ascend, from the lower end to the higher one")
    if match["log"] and ends[0] <= 0:
        raise ConfigError(f"{where}: both ends must be above 0 for a logarithmic range")
    is_whole = is_whole_number(key) and all(type(end) is int for end in ends)
    low, high = ends if is_whole else map(float, ends)
    return Dimension(key, "--range", low=low, high=high, is_log=bool(match["log"]), is_whole=is_whole)
