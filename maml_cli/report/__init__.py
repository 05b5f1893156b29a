"""Reports: one HTML page about trained runs, with a playground in which their networks run, for browsers offline."""

from maml_cli.report.learner_document import learner_document
from maml_cli.report.page import MAX_BYTES, write_report
from maml_cli.report.playground_tasks import playground_tasks

__all__ = ["MAX_BYTES", "learner_document", "playground_tasks", "write_report"]
