"""Progress of evaluations: a callback with the number of tasks done, which may also stop them."""

from collections.abc import Callable

from maml_cli.evaluation.held_out import TestTasks

OnTasks = Callable[[str, int, int], None]
"""Called after some tasks: (predictor in words, tasks done, tasks in all). It may raise to stop the evaluation."""


def ignore_tasks(predictor: str, done: int, total: int) -> None:
    """No progress is shown."""


def counted(on_tasks: OnTasks, predictor: str, test_tasks: TestTasks) -> Callable[[int], None]:
    """The callback (tasks done) -> None of one predictor on `test_tasks`."""
    words = f"K = {test_tasks.num_shots:,}, {predictor}"
    return lambda done: on_tasks(words, done, test_tasks.num_tasks)
