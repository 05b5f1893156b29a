"""Proofs on the user's machine that gradients are right: worked examples, finite differences, torch.func."""

from maml_cli.checks.gradients import run_checks
from maml_cli.checks.worked_examples import Case

__all__ = ["Case", "run_checks"]
