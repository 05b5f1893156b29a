"""The table of the families of functions, from the registry."""

import torch

from maml_cli.dev.markdown import table
from maml_cli.formulas import FAMILIES, Family, Normal, as_distribution, to_plain


def families_table() -> str:
    """A row for each family: its name, functions, parameters with their distributions, and exact baselines."""
    rows = [
        [f"`{name}`", _escaped(family.summary), _parameters(family), _baselines(family)]
        for name, family in FAMILIES.items()
    ]
    return table(["family", "functions", "parameters", "exact baselines"], rows)


def _escaped(text: str) -> str:
    """`text` without the marks that Markdown gives a meaning."""
    return text.replace("*", "\\*").replace("|", "\\|")


def _parameters(family: Family) -> str:
    return ", ".join(f"{name} {_in_words(value)}" for name, value in family.parameters.items())


def _in_words(value: object) -> str:
    distribution = as_distribution(value)
    if isinstance(distribution, Normal):
        return f"N({distribution.mean:g}, {distribution.std:g})"
    plain = to_plain(distribution)
    return f"[{distribution.low:.4g}, {distribution.high:.4g}]" if isinstance(plain, list) else f"{distribution.low:g}"


def _baselines(family: Family) -> str:
    has_mean = family.mean(torch.zeros(1, dtype=torch.float64), family.distributions(None)) is not None
    names = [*(["best unadapted"] if has_mean else []), *(["least squares"] if family.features else [])]
    return ", ".join(names)
