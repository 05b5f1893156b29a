"""Results for people and scripts: tables, JSON documents and figures."""

from maml_cli.reporting.tables import (
    case_dict,
    comparison_document,
    evaluation_document,
    finite_or_null,
    plan_dict,
    print_cases,
    print_comparisons,
    print_evaluations,
    to_json,
    train_dict,
)

__all__ = [
    "case_dict",
    "comparison_document",
    "evaluation_document",
    "finite_or_null",
    "plan_dict",
    "print_cases",
    "print_comparisons",
    "print_evaluations",
    "to_json",
    "train_dict",
]
