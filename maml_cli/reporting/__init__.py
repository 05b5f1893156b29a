"""Results as people and scripts read them: numbers in text, tables, JSON documents and figures."""

from typing import TYPE_CHECKING

from maml_cli.lazy import lazy_attributes

if TYPE_CHECKING:
    from maml_cli.reporting.comparison_figures import draw_comparison, draw_curves, draw_growth
    from maml_cli.reporting.documents import (
        check_document,
        comparison_document,
        difference_document,
        plan_document,
        training_document,
    )
    from maml_cli.reporting.figures import Curve
    from maml_cli.reporting.format import format_interval, format_number, format_short, plural
    from maml_cli.reporting.result_tables import evaluation_tables, print_evaluations, table_notes, tasks_note
    from maml_cli.reporting.run_figures import draw, drawable
    from maml_cli.reporting.sweep_figures import draw_sweep
    from maml_cli.reporting.sweep_tables import iter_sweep_csv, print_sweep, sweep_document
    from maml_cli.reporting.tables import (
        PlainTable,
        TitledTable,
        comparison_notes,
        comparison_tables,
        plain_table,
        print_cases,
        print_comparisons,
        print_difference,
    )
    from maml_cli.reporting.task_table import iter_task_csv
    from maml_cli.reporting.tensorboard import observe_training

__all__ = [
    "Curve",
    "PlainTable",
    "TitledTable",
    "check_document",
    "comparison_document",
    "comparison_notes",
    "comparison_tables",
    "difference_document",
    "draw",
    "draw_comparison",
    "draw_curves",
    "draw_growth",
    "draw_sweep",
    "drawable",
    "evaluation_tables",
    "format_interval",
    "format_number",
    "format_short",
    "iter_sweep_csv",
    "iter_task_csv",
    "observe_training",
    "plain_table",
    "plan_document",
    "plural",
    "print_cases",
    "print_comparisons",
    "print_difference",
    "print_evaluations",
    "print_sweep",
    "sweep_document",
    "table_notes",
    "tasks_note",
    "training_document",
]

_MODULES = {
    "documents": ["check_document", "comparison_document", "difference_document", "plan_document", "training_document"],
    "figures": ["Curve"],
    "format": ["format_interval", "format_number", "format_short", "plural"],
    "sweep_figures": ["draw_sweep"],
    "sweep_tables": ["iter_sweep_csv", "print_sweep", "sweep_document"],
    "result_tables": ["evaluation_tables", "print_evaluations", "table_notes", "tasks_note"],
    "tables": [
        "PlainTable",
        "TitledTable",
        "comparison_notes",
        "comparison_tables",
        "plain_table",
        "print_cases",
        "print_comparisons",
        "print_difference",
    ],
    "comparison_figures": ["draw_comparison", "draw_curves", "draw_growth"],
    "run_figures": ["draw", "drawable"],
    "task_table": ["iter_task_csv"],
    "tensorboard": ["observe_training"],
}
__getattr__ = lazy_attributes(__name__, {name: module for module, names in _MODULES.items() for name in names})
