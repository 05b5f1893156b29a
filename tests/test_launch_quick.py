"""A training starts quickly: it imports no slow module that it does not need."""

import subprocess
import sys
from pathlib import Path

import pytest

from maml_cli.engines import kernel_build

NATIVE = pytest.param("native", marks=pytest.mark.skipif(not kernel_build.compiler(), reason="no C++ compiler"))


@pytest.mark.parametrize("engine", ["eager", NATIVE])
def test_a_training_imports_neither_dynamo_nor_matplotlib(engine: str, tmp_path: Path) -> None:
    """torch.optim would import torch._dynamo, one to three seconds, when an optimiser is made and when one takes a
    step. A failure means that this torch imports it elsewhere."""
    code = (
        "import sys; from maml_cli.cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "print(sorted({'torch._dynamo', 'matplotlib'} & sys.modules.keys()))"
    )
    changes = ["outer.steps=2", f"run.engine={engine}", "run.eval_tasks=2", "inner.curvature=kronecker"]
    arguments = [
        "train",
        "-c",
        "smoke",
        "-q",
        "--out",
        "run",
        *(argument for change in changes for argument in ("-s", change)),
    ]
    result = subprocess.run([sys.executable, "-c", code, *arguments], capture_output=True, text=True, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines() == ["run", "[]"]
