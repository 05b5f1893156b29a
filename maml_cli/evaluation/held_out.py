"""Held-out tasks: functions and points that training never samples, equal for every learner.

Shapes: R runs, B tasks, K points, D inputs.
"""

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

from maml_cli.adaptation import chunks
from maml_cli.config import NUM_GRID
from maml_cli.core import Points, num_tasks
from maml_cli.errors import ConfigError
from maml_cli.tasks import TaskFamily, TestBlock, make_generator


class Protocol(NamedTuple):
    """The settings of an evaluation, apart from the learner.

    num_tasks: number of test tasks.
    shots: K, the support points of a task; one evaluation for each entry, none for the K of training (of a range, its
        smallest and its largest).
    steps: inner steps, or None for the default: max(10, trained steps), or fewer where alphas end.
    seed: of the test tasks; equal seeds give equal tasks to every run.
    noisy_targets: whether errors are measured against targets with the family's noise, as some papers do.
    """

    num_tasks: int = 10_000
    shots: tuple[int, ...] = ()
    steps: int | None = None
    seed: int = 0
    noisy_targets: bool = False


class TestTasks(NamedTuple):
    """Test tasks as the random streams that they are sampled from, so that a million of them need no memory.

    family: distribution of the tasks.
    seeds: of the streams; one for all runs, or one for each run, (R,).
    purpose: name of the streams, `test` or `validation`; no two purposes share tasks, and none is that of training.
    num_tasks: number of tasks.
    num_shots: K, the support points of a task, and its fresh query points.
    noisy_targets: whether the targets of grid and query points have the family's noise. The noise of the grid comes
        from streams of its own, so that everything else is the same with and without.
    """

    family: TaskFamily
    seeds: tuple[int, ...]
    purpose: str
    num_tasks: int
    num_shots: int
    noisy_targets: bool = False

    def iter_blocks(self) -> Iterator[TestBlock]:
        """The tasks in order, a block of a few hundred at a time: sampling is faster for many tasks."""
        for_noise = [make_generator(seed, f"{self.purpose}-grid-noise") for seed in self.seeds]
        return self.family.sampler.iter_test_blocks(
            [make_generator(seed, self.purpose) for seed in self.seeds],
            purpose=self.purpose,
            num_tasks=self.num_tasks,
            num_shots=self.num_shots,
            num_grid=NUM_GRID,
            for_noise=for_noise if self.noisy_targets else (),
        )

    def iter_chunks(
        self, network_inputs: Callable[[Points, Any], Points], *, num_runs: int, chunk: int | None = None
    ) -> Iterator[dict[str, Points]]:
        """The points of the tasks in order, `chunk` tasks (by default `CHUNK`) at a time, as `num_runs` networks
        take them: (R, B, K, D).

        Adapting is fastest while activations fit into the cache. Tasks that runs share are expanded, not copied.
        """
        chunk = chunk or chunks.CHUNK
        for block in self.iter_blocks():
            points = {name: network_inputs(points, block.functions) for name, points in block.points.items()}
            for start in range(0, num_tasks(points["support"]), chunk):
                yield {name: _chunk(group, start, num_runs, chunk) for name, group in points.items()}


def sample_test_tasks(family: TaskFamily, protocol: Protocol, num_shots: int) -> TestTasks:
    """The test tasks of `protocol` with K = `num_shots` support points, the same for all runs; equal for equal
    arguments.

    The functions are the same for every K. Support targets have the family's noise, if any; the targets that errors are
    measured against, on the grid and on K fresh points, have none, unless the protocol asks for it. Raises ConfigError
    if it does and the family has none.
    """
    if protocol.noisy_targets and not family.sampler.noise:
        raise ConfigError(
            "--noisy-targets: the tasks have no noise; leave it out, or give functions some with --set tasks.noise=0.1 "
            "(curves of a table are compared as they were measured, always)"
        )
    tasks = _held_out(family, (protocol.seed,), "test", protocol.num_tasks, num_shots)
    return tasks._replace(noisy_targets=protocol.noisy_targets)


def sample_validation_tasks(family: TaskFamily, seeds: Sequence[int], *, num_tasks: int, num_shots: int) -> TestTasks:
    """Tasks for the evaluations during training, one set for each run by its seed; `sample_test_tasks` has none."""
    return _held_out(family, tuple(seeds), "validation", num_tasks, num_shots)


def _held_out(family: TaskFamily, seeds: tuple[int, ...], purpose: str, num_tasks: int, num_shots: int) -> TestTasks:
    """As many tasks as asked for, or all that there are; raises DataError for fewer than two."""
    return TestTasks(family, seeds, purpose, family.sampler.num_test_tasks(purpose, num_tasks, num_shots), num_shots)


def _chunk(points: Points, start: int, num_runs: int, chunk: int) -> Points:
    return Points(*(tensor.expand(num_runs, *tensor.shape[1:])[:, start : start + chunk] for tensor in points))
