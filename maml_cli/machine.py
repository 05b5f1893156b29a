"""What this machine and this installation are: for bug reports and for the methods section of a paper."""

import os
import platform
import sys
from importlib import metadata

import torch

from maml_cli import __version__
from maml_cli.devices import available

PACKAGES = ("torch", "typer", "pydantic", "pyyaml", "matplotlib", "tqdm", "numpy")


def info() -> dict[str, str | int]:
    """Versions, devices, threads and the instruction set that PyTorch computes with."""
    facts: dict[str, str | int] = {"maml": __version__, "python": platform.python_version()}
    for name in PACKAGES:
        try:
            facts[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            facts[name] = "not installed"
    facts |= {
        "platform": f"{platform.system()} {platform.release()} {platform.machine()}",
        "executable": sys.executable,
        "devices": ", ".join(available()),
        "cpu cores": os.cpu_count() or 1,
        "threads": torch.get_num_threads(),  # of evaluation; training takes run.threads
        "cpu capability": torch.backends.cpu.get_cpu_capability(),
    }
    if torch.cuda.is_available():
        facts["cuda"] = f"{torch.version.cuda}, {torch.cuda.get_device_name()}"
    return facts
