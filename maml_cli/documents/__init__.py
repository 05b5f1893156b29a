"""JSON documents: the fields of all that commands print, each described and checked, and their schemas; no PyTorch."""

from typing import TYPE_CHECKING

from maml_cli.lazy import lazy_attributes

if TYPE_CHECKING:
    from maml_cli.documents.adaptations import AdaptDocument, Prediction, Scaling
    from maml_cli.documents.evaluations import (
        CompareDocument,
        Comparison,
        DiffDocument,
        EvalDocument,
        Evaluation,
        KeyDifference,
    )
    from maml_cli.documents.machine import Case, CheckDocument, InfoDocument
    from maml_cli.documents.registry import DOCUMENTS, json_schema, json_schema_text
    from maml_cli.documents.shape import finite_or_null, to_json, to_plain
    from maml_cli.documents.trainings import (
        DivergenceLine,
        EvaluationLine,
        LossLine,
        MetricRow,
        MetricsDocument,
        PlanDocument,
        RateLine,
        RunRow,
        RunsDocument,
        StartLine,
        SweepDocument,
        TrainDocument,
        Trial,
        ValidationErrors,
    )

__all__ = [
    "DOCUMENTS",
    "AdaptDocument",
    "Case",
    "CheckDocument",
    "CompareDocument",
    "Comparison",
    "DiffDocument",
    "DivergenceLine",
    "EvalDocument",
    "Evaluation",
    "EvaluationLine",
    "InfoDocument",
    "KeyDifference",
    "LossLine",
    "MetricRow",
    "MetricsDocument",
    "PlanDocument",
    "Prediction",
    "RateLine",
    "RunRow",
    "RunsDocument",
    "Scaling",
    "StartLine",
    "SweepDocument",
    "TrainDocument",
    "Trial",
    "ValidationErrors",
    "finite_or_null",
    "json_schema",
    "json_schema_text",
    "to_json",
    "to_plain",
]

_MODULES = {
    "adaptations": ["AdaptDocument", "Prediction", "Scaling"],
    "evaluations": ["CompareDocument", "Comparison", "DiffDocument", "EvalDocument", "Evaluation", "KeyDifference"],
    "machine": ["Case", "CheckDocument", "InfoDocument"],
    "registry": ["DOCUMENTS", "json_schema", "json_schema_text"],
    "shape": ["finite_or_null", "to_json", "to_plain"],
    "trainings": [
        "DivergenceLine",
        "EvaluationLine",
        "LossLine",
        "MetricRow",
        "MetricsDocument",
        "PlanDocument",
        "RateLine",
        "RunRow",
        "RunsDocument",
        "StartLine",
        "SweepDocument",
        "TrainDocument",
        "Trial",
        "ValidationErrors",
    ],
}
__getattr__ = lazy_attributes(__name__, {name: module for module, names in _MODULES.items() for name in names})
