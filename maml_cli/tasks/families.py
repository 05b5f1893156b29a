"""Task families from the section `tasks` of a config."""

from collections.abc import Mapping
from typing import Any

from maml_cli.formulas import DATA, MIXTURE, find_family
from maml_cli.tasks.data_family import DataFamily
from maml_cli.tasks.family import TaskFamily
from maml_cli.tasks.parametric_family import Component, ParametricFamily
from maml_cli.tasks.sine_family import SineFamily


def make_family(tasks: Mapping[str, Any]) -> TaskFamily:
    """The family that the values of the section `tasks` describe; raises ConfigError for a name without a family."""
    if tasks["family"] == "sine" and not tasks["parameters"]:
        return SineFamily.from_values(tasks)
    if tasks["family"] == DATA:
        return DataFamily.from_values(tasks)
    if tasks["family"] == MIXTURE:
        components = [_component(entry.family, entry.parameters, entry.weight) for entry in tasks["mixture"]]
    else:
        components = [_component(tasks["family"], tasks["parameters"])]
    noise = tasks["relative_noise"] or tasks["noise"]
    test_range = tasks["test_x"] or tasks["x"]
    return ParametricFamily(tuple(components), tasks["x"], test_range, noise, bool(tasks["relative_noise"]))


def _component(name: str, parameters: Mapping[str, Any] | None, weight: float = 1.0) -> Component:
    family = find_family(name)
    return Component(name, family, tuple(family.distributions(parameters).items()), weight)
