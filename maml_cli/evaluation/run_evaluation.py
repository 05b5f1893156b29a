"""Evaluations of a trained run by a protocol, and the file of their result."""

from pathlib import Path

from maml_cli.evaluation.evaluate import divergence_limits, evaluate
from maml_cli.evaluation.held_out import Protocol
from maml_cli.evaluation.memory import Lower, check_memory
from maml_cli.evaluation.progress import OnTasks, ignore_tasks
from maml_cli.evaluation.results import EvaluationResult
from maml_cli.evaluation.statistics import PointErrors, summarise_runs
from maml_cli.evaluation.task_errors import learner_errors
from maml_cli.evaluation.task_rows import TaskErrors, mean_task_errors
from maml_cli.evaluation.trained_run import TrainedRun, held_out_tasks, last_inner_step
from maml_cli.runs import make_folder, target_of, write_atomic


def evaluate_run(
    run: TrainedRun, protocol: Protocol, *, keep_tasks: bool = False, on_tasks: OnTasks = ignore_tasks
) -> EvaluationResult:
    """One evaluation of `run` for each K of `protocol`, after every inner step.

    `keep_tasks`: whether the result has the error of each task, see EvaluationResult.per_task. `on_tasks` is called
    after each chunk of tasks. Raises ConfigError if it needs more memory than is available.
    """
    steps = last_inner_step(run, protocol)
    check_run_memory(run, protocol, num_kept=max(1, len(protocol.shots)) if keep_tasks else 0)
    evaluations = [
        evaluate(
            run.experiment,
            run.meta_params,
            tasks,
            steps=steps,
            trained_steps=run.config.trained_steps,
            run_index=run.run_index,
            keep=run.measure if keep_tasks else None,
            on_tasks=on_tasks,
        )
        for tasks in held_out_tasks(run, protocol)
    ]
    checkpoint = run.checkpoint
    return EvaluationResult(str(checkpoint.file), checkpoint.step, tuple(run.overrides), tuple(evaluations))


def learner_task_errors(run: TrainedRun, protocol: Protocol, *, on_tasks: OnTasks = ignore_tasks) -> TaskErrors:
    """The error of each test task after every inner step, of the learner alone: at the first K of `protocol`, mean over
    the seeds that have not diverged. Raises ConfigError if it needs more memory than is available."""
    check_run_memory(run, protocol, num_kept=1)
    (tasks, *_) = held_out_tasks(run, protocol)
    errors = learner_errors(
        run.experiment, run.meta_params, tasks, steps=last_inner_step(run, protocol), on_tasks=on_tasks
    )
    return mean_task_errors(tasks, errors, [*run.run_index.values()], run.measure)


def check_run_memory(run: TrainedRun, protocol: Protocol, *, num_kept: int = 0) -> None:
    """Raises ConfigError if an evaluation of `run` by `protocol` would need more memory than is available, with the
    errors of single tasks of `num_kept` evaluations."""
    for tasks in held_out_tasks(run, protocol):
        check_memory(
            run.meta_params,
            num_tasks=tasks.num_tasks,
            num_shots=tasks.num_shots,
            steps=last_inner_step(run, protocol),
            lower=Lower("--tasks or --steps", "--shots"),
            num_kept=num_kept,
        )


def evaluate_learner(run: TrainedRun, protocol: Protocol) -> list[list[PointErrors]]:
    """Errors of the learner alone, without untrained networks and baselines, which take most of the time of
    `evaluate_run`: for each K of `protocol`, after 0, 1, ... inner steps, with tails.

    Over the seeds that have not diverged. Raises ConfigError if it needs more memory than is available.
    """
    check_run_memory(run, protocol)
    steps, runs = last_inner_step(run, protocol), [*run.run_index.values()]
    results = []
    for tasks in held_out_tasks(run, protocol):
        limits = divergence_limits(tasks)
        errors = learner_errors(run.experiment, run.meta_params, tasks, steps=steps)
        results.append([summarise_runs(at_step, runs, limits=limits) for at_step in errors])
    return results


def write_result(run: TrainedRun, document: str, protocol: Protocol, out: Path | None = None) -> str:
    """Write an evaluation to `out`, or by default to `eval.json` of the run directory; the line to print about it.

    `eval.json` is the result of the default protocol on the run's own family: any other result is written to `out` or
    not at all. An `eval.json` that cannot be written is no error, since the result is printed too. Raises OSError if
    `out` cannot be written.
    """
    directory = run.checkpoint.run
    if out is None and (run.overrides or not _is_default(run, protocol)):
        return "not written to a file: eval.json is for the default protocol, without overrides"
    if out is None and directory is None:
        return "not written to a file: the checkpoint is not in a run directory"
    file = out or Path(directory or "") / "eval.json"
    try:  # a link that the user names is followed, one inside a run is replaced
        make_folder(file.parent)
        write_atomic(target_of(file) if out else file, f"{document}\n".encode())
    except OSError as error:
        if out is not None:
            raise
        return f"not written: {file}: {error.strerror}"
    return f"written to {file}"


def _is_default(run: TrainedRun, protocol: Protocol) -> bool:
    """Whether an evaluation is that of Protocol(), by default or because equal values were asked for."""
    tasks, default_tasks = (held_out_tasks(run, settings) for settings in (protocol, Protocol()))
    return tasks == default_tasks and last_inner_step(run, protocol) == last_inner_step(run, Protocol())
