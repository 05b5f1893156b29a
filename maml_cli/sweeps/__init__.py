"""Sweeps: many trainings over values of config keys, by any number of processes, each exactly once."""

from typing import TYPE_CHECKING

from maml_cli.lazy import lazy_attributes

if TYPE_CHECKING:
    from maml_cli.sweeps.jobs import STORAGE_VARIABLE, run_jobs
    from maml_cli.sweeps.record import Sweep, open_sweep, plan_sweep, read_sweep
    from maml_cli.sweeps.results import TrialRow, read_rows
    from maml_cli.sweeps.space import Space, read_space
    from maml_cli.sweeps.storage import Store, check_storage_url, open_store
    from maml_cli.sweeps.worker import work

__all__ = [
    "STORAGE_VARIABLE",
    "Space",
    "Store",
    "Sweep",
    "TrialRow",
    "check_storage_url",
    "open_store",
    "open_sweep",
    "plan_sweep",
    "read_rows",
    "read_space",
    "read_sweep",
    "run_jobs",
    "work",
]

_MODULES = {
    "jobs": ["STORAGE_VARIABLE", "run_jobs"],
    "record": ["Sweep", "open_sweep", "plan_sweep", "read_sweep"],
    "results": ["TrialRow", "read_rows"],
    "space": ["Space", "read_space"],
    "storage": ["Store", "check_storage_url", "open_store"],
    "worker": ["work"],
}
__getattr__ = lazy_attributes(__name__, {name: module for module, names in _MODULES.items() for name in names})
