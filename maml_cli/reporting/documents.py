"""JSON documents of results: the fields of maml_cli/documents, filled from NamedTuples."""

from collections.abc import Sequence
from pathlib import Path

from maml_cli.checks import Case
from maml_cli.config import to_dict
from maml_cli.documents import evaluations, machine, trainings
from maml_cli.evaluation import Comparison, RunDifference, by_step, plain
from maml_cli.training import SessionResult, TrainPlan


def plan_document(plan: TrainPlan) -> trainings.PlanDocument:
    """The document of `maml train --dry-run --json`."""
    return trainings.PlanDocument(
        run=plan.run_directory,
        step=plan.checkpoint.step if plan.checkpoint else 0,
        device=plan.device.name,
        engine=plan.engine.name,
        config=to_dict(plan.config),
    )


def training_document(session: SessionResult) -> trainings.TrainDocument:
    """The document of `maml train --json`; seconds and rates are those of this process."""
    result, config = session.result, session.config
    rate = result.steps_done / result.seconds if result.steps_done else 0.0
    return trainings.TrainDocument(
        run=str(session.run),
        checkpoint=str(result.checkpoint),
        step=result.step,
        seconds=result.seconds,
        outer_steps_per_second=rate,
        tasks_per_second=rate * config.outer.tasks_per_step * len(config.seeds),
        device=session.device,
        engine=session.engine,
        interrupted=result.interrupted,
        seeds=config.seeds,
        diverged={str(seed): step for seed, step in result.diverged.items()},
    )


def comparison_document(comparisons: Sequence[Comparison], figures: Sequence[Path]) -> evaluations.CompareDocument:
    """The document of `maml compare --json`: the files of the figures, and one result for each K."""
    return evaluations.CompareDocument(
        figures=[str(figure) for figure in figures],
        results=[_comparison(comparison) for comparison in comparisons],
    )


def difference_document(difference: RunDifference) -> evaluations.DiffDocument:
    """The document of `maml diff --json`: the keys that differ, and one result for each K, or a note without any."""
    return evaluations.DiffDocument(
        left=difference.left,
        right=difference.right,
        keys=[evaluations.KeyDifference(**key._asdict()) for key in difference.keys],
        note=difference.note or None,
        results=[_comparison(comparison) for comparison in difference.comparisons],
    )


def check_document(cases: Sequence[Case]) -> machine.CheckDocument:
    """The document of `maml check --json`: the expected and the obtained value of each check."""
    return machine.CheckDocument(
        passed=all(case.passed for case in cases),
        cases=[machine.Case(**case._asdict(), passed=case.passed) for case in cases],
    )


def _comparison(comparison: Comparison) -> evaluations.Comparison:
    runs = [plain(run) | {"steps": by_step(run.steps)} for run in comparison.runs]
    baselines = {name: plain(errors) for name, errors in comparison.baselines.items()}
    return evaluations.Comparison.model_validate({**comparison._asdict(), "runs": runs, "baselines": baselines})
