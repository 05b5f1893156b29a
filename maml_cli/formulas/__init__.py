"""Families of functions of one variable: formulas, distributions of their parameters, and what is known in closed form.

No module here imports PyTorch: formulas use the methods of the tensors that they are given.
"""

from maml_cli.formulas.distributions import Distribution, Normal, Uniform, as_distribution, is_constant, to_plain
from maml_cli.formulas.family import Distributions, Family
from maml_cli.formulas.registry import (
    DATA,
    FAMILIES,
    MIXTURE,
    WITHOUT_FORMULA,
    family_names,
    find_family,
    register_family,
)

__all__ = [
    "DATA",
    "FAMILIES",
    "MIXTURE",
    "WITHOUT_FORMULA",
    "Distribution",
    "Distributions",
    "Family",
    "Normal",
    "Uniform",
    "as_distribution",
    "family_names",
    "find_family",
    "is_constant",
    "register_family",
    "to_plain",
]
