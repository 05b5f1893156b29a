"""The composition root: from a Config to the functions and distributions of an experiment."""

from maml_cli.experiment.build import DTYPES, STRATIFIED, Experiment, build_experiment
from maml_cli.experiment.data import measure_data
from maml_cli.experiment.differentiation import (
    META_GRADIENTS,
    ORDERS,
    MetaGradientSource,
    Order,
    first_order_until,
    step_weights,
)
from maml_cli.experiment.sizes import choose_device, outer_step_work, param_keys

__all__ = [
    "DTYPES",
    "META_GRADIENTS",
    "ORDERS",
    "STRATIFIED",
    "Experiment",
    "MetaGradientSource",
    "Order",
    "build_experiment",
    "choose_device",
    "first_order_until",
    "measure_data",
    "outer_step_work",
    "param_keys",
    "step_weights",
]
