"""Constraints on the family of tasks and its parameters."""

from typing import TYPE_CHECKING, Any

from maml_cli.config.constraint import Constraint
from maml_cli.config.tasks_schema import Tasks
from maml_cli.formulas import DATA, MIXTURE, WITHOUT_FORMULA, find_family

if TYPE_CHECKING:
    from maml_cli.config.schema import Config

SINE_KEYS = ("amplitude", "frequency", "phase", "offset")
"""Keys of `tasks` that only the family sine has, when it is not given by `tasks.parameters`."""


def _uses_sine_keys(config: "Config") -> bool:
    return config.tasks.family == "sine" and not config.tasks.parameters


def frequencies(key: str, config: "Config") -> list[float]:
    """The largest magnitude of each frequency of the tasks, as far as the config gives them at `key`."""
    tasks = config.tasks
    if key == "tasks.frequency":
        return [max(map(abs, tasks.frequency))] if _uses_sine_keys(config) else []
    if key == "tasks.mixture":
        components = tasks.mixture or [] if tasks.family == MIXTURE else []
        return [value for entry in components for value in _frequencies(entry.family, entry.parameters)]
    return [] if _uses_sine_keys(config) else _frequencies(tasks.family, tasks.parameters or {})


def _frequencies(family: str, parameters: dict[str, Any]) -> list[float]:
    """The largest magnitude of each parameter whose name starts with frequency; none where a parameter is wrong."""
    if family in WITHOUT_FORMULA or _unknown(family, parameters):
        return []
    distributions = find_family(family).distributions(parameters)
    return [max(map(abs, value.extent)) for name, value in distributions.items() if name.startswith("frequency")]


def _parameter_problem(config: "Config") -> str:
    """The reason why `tasks.parameters` do not fit the family; empty if they do."""
    tasks = config.tasks
    if not tasks.parameters or tasks.family == DATA:
        return ""
    if tasks.family == MIXTURE:
        return "has no effect: the components in tasks.mixture have their own"
    return _unknown(tasks.family, tasks.parameters)


def _mixture_problem(config: "Config") -> str:
    """The reason why `tasks.mixture` does not fit the family; empty if it does."""
    tasks = config.tasks
    if (tasks.family == MIXTURE) != (tasks.mixture is not None):
        return "must list the components of the mixture" if tasks.mixture is None else "needs tasks.family: mixture"
    for component in tasks.mixture or []:
        problem = f"has {component.family} inside, which is no formula" if component.family in WITHOUT_FORMULA else ""
        if problem := problem or _unknown(component.family, component.parameters):
            return problem
    return ""


def _unknown(family: str, parameters: dict[str, Any]) -> str:
    try:
        find_family(family).distributions(parameters)
    except ValueError as error:
        return f"{error} in family {family}"
    return ""


def _lacks_amplitude(config: "Config") -> bool:
    tasks = config.tasks
    names = [component.family for component in tasks.mixture or []] if tasks.family == MIXTURE else [tasks.family]
    return any(name not in WITHOUT_FORMULA and not find_family(name).amplitude for name in names)


FAMILY_CONSTRAINTS = [
    *(
        Constraint(
            f"tasks.{key}",
            ["tasks.family", "tasks.parameters"],
            lambda c, key=key: not _uses_sine_keys(c) and not _is_default(c, key),  # type: ignore[misc]
            lambda c: (
                "has no effect beside tasks.parameters; write it there"
                if c.tasks.family == "sine"
                else "has no effect: the points are those of tasks.file"
                if c.tasks.family == DATA
                else f"has no effect on the family {c.tasks.family}; its parameters are in tasks.parameters"
            ),
        )
        for key in SINE_KEYS
    ),
    Constraint(
        "tasks.parameters", ["tasks.family"], lambda c: bool(_parameter_problem(c)), lambda c: _parameter_problem(c)
    ),
    Constraint("tasks.mixture", ["tasks.family"], lambda c: bool(_mixture_problem(c)), lambda c: _mixture_problem(c)),
    Constraint(
        "tasks.relative_noise",
        ["tasks.noise"],
        lambda c: c.tasks.relative_noise > 0 and c.tasks.noise > 0,
        "must be 0 where tasks.noise is not: give one of the two",
    ),
    Constraint(
        "tasks.relative_noise",
        ["tasks.family", "tasks.mixture"],
        lambda c: c.tasks.relative_noise > 0 and _lacks_amplitude(c),
        "must be 0 for a family that has no amplitude; give tasks.noise",
    ),
    Constraint(
        "tasks.test_x",
        [],
        lambda c: c.tasks.test_x is not None and c.tasks.test_x[0] == c.tasks.test_x[1],
        "must be [low, high] with low below high",
    ),
    Constraint(
        "model.oracle",
        ["tasks.family", "tasks.parameters"],
        lambda c: c.model.oracle and not _uses_sine_keys(c),
        "must be false for families other than sine, and where tasks.parameters are given",
    ),
]


def _is_default(config: "Config", key: str) -> bool:
    """Whether a key of the section `tasks` has its default."""
    return bool(getattr(config.tasks, key) == Tasks.model_fields[key].default)
