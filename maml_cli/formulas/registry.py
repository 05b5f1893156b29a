"""The families by name: those of this package, those that other packages declare, and those that a program registers.

A package declares a family by an entry point: in its pyproject.toml,

    [project.entry-points."maml_cli.families"]
    square_duty = "my_package:SQUARE_DUTY"

where the value is a Family. A config names families, never code: what it can name is installed by the user.
"""

from importlib import metadata

from maml_cli.errors import ConfigError
from maml_cli.formulas.absolute import ABSOLUTE
from maml_cli.formulas.family import Family
from maml_cli.formulas.harmonic import HARMONIC
from maml_cli.formulas.line import LINE
from maml_cli.formulas.quadratic import QUADRATIC
from maml_cli.formulas.sawtooth import SAWTOOTH
from maml_cli.formulas.sine import SINE
from maml_cli.formulas.sine_slope import SINE_SLOPE
from maml_cli.formulas.square import SQUARE
from maml_cli.formulas.tanh import TANH

GROUP = "maml_cli.families"
"""The group of entry points that declare families."""

FAMILIES: dict[str, Family] = {
    "sine": SINE,
    "line": LINE,
    "quadratic": QUADRATIC,
    "absolute": ABSOLUTE,
    "tanh": TANH,
    "harmonic": HARMONIC,
    "sine_slope": SINE_SLOPE,
    "square": SQUARE,
    "sawtooth": SAWTOOTH,
}
"""Values of `tasks.family` with parameters. A new family is a module with a Family and a row here."""
MIXTURE = "mixture"
"""The family of `tasks.mixture`."""
DATA = "data"
"""The family of the curves in `tasks.file`."""
WITHOUT_FORMULA = (MIXTURE, DATA)
"""Families that are no formulas."""

_registered: dict[str, Family] = {}


def register_family(name: str, family: Family) -> None:
    """Let configs name `family` in this program, and in processes forked from it.

    Raises ConfigError for a name that is taken or that is none, and for a family that is not complete.
    """
    if not name.isidentifier() or name in (*FAMILIES, *WITHOUT_FORMULA):
        reason = "is taken" if name in (*FAMILIES, *WITHOUT_FORMULA) else "must be letters, digits and underscores"
        raise ConfigError(f"family {name!r}: the name {reason}; choose another")
    _check(name, family)
    _registered[name] = family


def family_names() -> list[str]:
    """The names of all formulas that configs can name on this machine."""
    return [*FAMILIES, *_registered, *(name for name in _entry_points() if name not in FAMILIES)]


def find_family(name: str) -> Family:
    """The family `name`; raises ConfigError if there is none, or if it is not complete."""
    family = FAMILIES.get(name) or _registered.get(name)
    if family is not None:
        return family
    points = _entry_points()
    if name not in points:
        raise ConfigError(f"must be {', '.join([*family_names(), MIXTURE])} or {DATA}")
    try:
        loaded = points[name].load()
    except Exception as error:  # the package is not ours
        raise ConfigError(f"{points[name].value} cannot be imported: {type(error).__name__}: {error}") from None
    _check(name, loaded)
    family_of_package: Family = loaded
    return family_of_package


def _entry_points() -> dict[str, metadata.EntryPoint]:
    return {point.name: point for point in metadata.entry_points(group=GROUP)}


def _check(name: str, family: object) -> None:
    """Raises ConfigError unless `family` is a Family whose parameters have distributions."""
    if not isinstance(family, Family):
        raise ConfigError(f"family {name}: is {type(family).__name__}; it must be a maml_cli.Family")
    if not callable(family.function) or not family.parameters:
        raise ConfigError(f"family {name}: must have a function and at least one parameter")
    try:
        family.distributions(None)
    except ValueError as error:
        raise ConfigError(f"family {name}: {error}") from None
    if family.amplitude and family.amplitude not in family.parameters:
        raise ConfigError(f"family {name}: its amplitude, {family.amplitude}, is none of its parameters")
