"""Several processes that share a training, as torchrun starts them: what they exchange, and who speaks for all.

Process 0 is the leader: it alone reads and writes files and prints. Without torchrun there is one process, the leader,
and no process group.
"""

import contextlib
import os
from collections.abc import Callable, Iterator
from datetime import timedelta
from typing import Any, NamedTuple, NoReturn, TypeVar, cast

import torch
from torch import Tensor, distributed

from maml_cli.errors import ConfigError, InterruptedRun, UserError
from maml_cli.training.rendezvous import RUN_KEY, open_store, store_of_this_start

T = TypeVar("T")

LONGEST_WAIT = timedelta(days=1)
"""Time in which a process may wait for another, in an evaluation by the leader for instance; torchrun ends all of them
much earlier if one ends."""

CONNECTION_FAILURES = (
    "onnection closed",
    "onnection reset",
    "onnection refused",
    "roken pipe",
    "timed out",
    "Timed out",
)
"""Words of the RuntimeErrors in which gloo and NCCL report that another process ended."""


class Processes(NamedTuple):
    """The processes that share a training, as one of them sees them.

    are_joined: whether torchrun started them, even if it is one alone.
    rank, size: this process, from 0, and their number.
    size_here: their number on this machine.
    exchange: a value of this process -> the values of all, by rank; every process must call it.
    gather: the same for the leader alone; the others get an empty list.
    gather_rows: a tensor -> those of all processes, of equal shape, stacked along a new first axis.
    started_run: the run directory that earlier processes of the same job began; None if there is none.
    announce: names the run directory for processes that are started again.
    """

    are_joined: bool = False
    rank: int = 0
    size: int = 1
    size_here: int = 1
    exchange: Callable[[Any], list[Any]] = lambda value: [value]
    gather: Callable[[Any], list[Any]] = lambda value: [value]
    gather_rows: Callable[[Tensor], Tensor] = lambda rows: rows.unsqueeze(0)
    started_run: str | None = None
    announce: Callable[[str], None] = lambda run: None

    @property
    def is_leader(self) -> bool:
        """Whether this is process 0."""
        return self.rank == 0

    def lead(self, compute: Callable[[], T]) -> T:
        """The value that the leader computes, in every process. A UserError is raised in all of them; see together."""
        return cast(T, self.together(compute if self.is_leader else lambda: None)[0])

    def together(self, compute: Callable[[], T]) -> list[T]:
        """The values that each process computes, by rank.

        If any raises a UserError, the leader raises the first of them, and the others end with its exit code: one
        message is printed.
        """
        try:
            value, error = compute(), None
        except UserError as raised:
            if self.size == 1:
                raise
            value, error = None, raised
        outcomes = self.exchange((value, error))
        if first := next((error for _, error in outcomes if error is not None), None):
            self.fail(first)
        return [value for value, _ in outcomes]

    def fail(self, error: UserError) -> NoReturn:
        """Raise an error that all processes know: the leader raises it, and the others end with its exit code."""
        raise error if self.is_leader else SystemExit(error.exit_code) from None


ONE_PROCESS = Processes()


@contextlib.contextmanager
def join_processes() -> Iterator[Processes]:
    """The processes that torchrun started; one process, and no process group, without torchrun.

    An interruption is reported by the leader alone. Raises ConfigError if the processes cannot connect.
    """
    if "TORCHELASTIC_RUN_ID" not in os.environ:
        yield ONE_PROCESS
        return
    rank, size, rank_here, size_here = (
        int(os.environ[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
    )
    backend = "gloo"
    if torch.cuda.is_available() and distributed.is_nccl_available():
        torch.cuda.set_device(rank_here % torch.cuda.device_count())
        backend = "cpu:gloo,cuda:nccl"
    try:
        store = open_store(rank)
        started_run = store.get(RUN_KEY).decode() if store.check([RUN_KEY]) else None
        start = store_of_this_start(store, rank, size)
        distributed.init_process_group(backend, timeout=LONGEST_WAIT, store=start, rank=rank, world_size=size)
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f"torchrun: the processes cannot connect: {str(error).splitlines()[0]}") from None
    try:
        yield Processes(
            True,
            rank,
            size,
            size_here,
            exchange=_exchange,
            gather=_gather,
            gather_rows=_gather_rows,
            started_run=started_run,
            announce=lambda run: store.set(RUN_KEY, run),
        )
    except InterruptedRun as error:
        raise error if rank == 0 else SystemExit(error.exit_code) from None
    finally:
        distributed.destroy_process_group()


def _exchange(value: Any) -> list[Any]:
    values = [None] * distributed.get_world_size()
    with _all_alive():
        distributed.all_gather_object(values, value)
    return values


def _gather(value: Any) -> list[Any]:
    is_leader = distributed.get_rank() == 0
    values = [None] * distributed.get_world_size() if is_leader else None
    with _all_alive():
        distributed.gather_object(value, values)
    return values or []


def _gather_rows(rows: Tensor) -> Tensor:
    result = [torch.empty_like(rows) for _ in range(distributed.get_world_size())]
    with _all_alive():
        distributed.all_gather(result, rows.contiguous())
    return torch.stack(result)


@contextlib.contextmanager
def _all_alive() -> Iterator[None]:
    """Raise InterruptedRun if another process ended: its connection is closed."""
    try:
        yield
    except RuntimeError as error:
        if not any(words in str(error) for words in CONNECTION_FAILURES):
            raise
        message = "another process of this training ended, and so do the others; torchrun can start them again"
        raise InterruptedRun(f"{message} (--max-restarts)", exit_code=143) from None
