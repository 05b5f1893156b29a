"""JSON documents of results: NamedTuples become objects with the names of their fields."""

from collections.abc import Sequence
from pathlib import Path

from maml_cli.checks import Case
from maml_cli.config import to_dict
from maml_cli.evaluation import Comparison, RunDifference, by_step, plain
from maml_cli.reporting.json_text import Document
from maml_cli.training import SessionResult, TrainPlan


def plan_document(plan: TrainPlan) -> Document:
    """The document of `maml train --dry-run --json`."""
    return {
        "run": plan.run_directory,
        "step": plan.checkpoint.step if plan.checkpoint else 0,
        "device": plan.device.name,
        "engine": plan.engine.name,
        "config": to_dict(plan.config),
    }


def training_document(session: SessionResult) -> Document:
    """The document of `maml train --json`; seconds and rates are those of this process."""
    result, config = session.result, session.config
    rate = result.steps_done / result.seconds if result.steps_done else 0.0
    return {
        "run": str(session.run),
        "checkpoint": str(result.checkpoint),
        "step": result.step,
        "seconds": result.seconds,
        "outer_steps_per_second": rate,
        "tasks_per_second": rate * config.outer.tasks_per_step * len(config.seeds),
        "device": session.device,
        "engine": session.engine,
        "interrupted": result.interrupted,
        "seeds": config.seeds,
        "diverged": {str(seed): step for seed, step in result.diverged.items()},
    }


def comparison_document(comparisons: Sequence[Comparison], figures: Sequence[Path]) -> Document:
    """The document of `maml compare --json`: the files of the figures, and one result for each K."""
    return {
        "figures": [str(figure) for figure in figures],
        "results": [_comparison(comparison) for comparison in comparisons],
    }


def difference_document(difference: RunDifference) -> Document:
    """The document of `maml diff --json`: the keys that differ, and one result for each K, or a note without any."""
    return {
        "left": difference.left,
        "right": difference.right,
        "keys": [key._asdict() for key in difference.keys],
        "note": difference.note or None,
        "results": [_comparison(comparison) for comparison in difference.comparisons],
    }


def case_document(case: Case) -> Document:
    """A check of `maml check --json`: its expected and obtained value, and whether the two agree."""
    return {**case._asdict(), "passed": case.passed}


def _comparison(comparison: Comparison) -> Document:
    runs = [plain(run) | {"steps": by_step(run.steps)} for run in comparison.runs]
    baselines = {name: plain(errors) for name, errors in comparison.baselines.items()}
    return {**comparison._asdict(), "runs": runs, "baselines": baselines}
