"""Trainings that several processes share: their settings, and the part of each process.

The runs of several seeds are shared out, each trained on its own; or the tasks of a single run, in blocks. Neither
depends on the number of processes, and so neither do the bytes of the results.
"""

from maml_cli.config import Config
from maml_cli.engines import ALL_BLOCKS, BlockShare
from maml_cli.errors import ConfigError
from maml_cli.training.processes import Processes

DEFAULT_BLOCKS = 12
"""Blocks of tasks by default: equal shares for 1, 2, 3, 4, 6 and 12 processes."""


def shared_settings(config: Config) -> list[str]:
    """The overrides with which several processes can share a new training of `config`; none if they can already.

    Raises ConfigError for an engine that cannot share the tasks of a single run.
    """
    if len(config.seeds) > 1:
        return ["run.side_by_side=false"] if config.run.side_by_side else []
    if config.run.engine in ("native", "compiled"):
        raise ConfigError(
            f"run.engine: {config.run.engine} cannot share the tasks of a single run among processes; use eager, give "
            f"several run.seeds, or leave out torchrun"
        )
    blocks = min(DEFAULT_BLOCKS, config.outer.tasks_per_step)
    return [f"outer.task_blocks={blocks}"] if config.outer.task_blocks is None else []


def check_shareable(config: Config, processes: Processes) -> None:
    """Raises ConfigError if the run of `config`, which is resumed, was not started for several processes."""
    if processes.size == 1:
        return
    if len(config.seeds) > 1 and config.run.side_by_side:
        key, value = "run.side_by_side", "true: its runs are computed together"
    elif len(config.seeds) == 1 and config.outer.task_blocks is None:
        key, value = "outer.task_blocks", "null: its tasks are computed together"
    else:
        return
    raise ConfigError(f"the run has {key} {value}; resume it with one process, without torchrun")


def idle_processes(config: Config, processes: Processes) -> int:
    """Processes that have nothing to compute: more than there are seeds, or blocks of tasks."""
    shares = len(config.seeds) if len(config.seeds) > 1 else config.outer.task_blocks or 1
    return max(0, processes.size - shares)


def block_share(config: Config, processes: Processes) -> BlockShare:
    """The blocks of tasks that this process computes: its part for a single run, and all for runs of its own."""
    if processes.size == 1 or len(config.seeds) > 1:
        return ALL_BLOCKS
    return BlockShare(processes.rank, processes.size, processes.gather_rows)
