"""Starting is quick: what is slow to import is left out of a training."""

import subprocess
import sys
from pathlib import Path

import pytest

from maml_cli.engines import kernel_build


@pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler on this machine")
def test_a_training_imports_neither_dynamo_nor_matplotlib(tmp_path: Path) -> None:
    """PyTorch imports torch._dynamo for every optimiser, for over a second; if this fails it does so in another way.

    With the engine native, that is: a step of an optimiser of PyTorch's own imports it all the same.
    """
    code = (
        "import sys; from maml_cli.cli.app import main\n"
        "try: main(sys.argv[1:])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "print(sorted({'torch._dynamo', 'matplotlib'} & sys.modules.keys()))"
    )
    changes = ["outer.steps=2", "run.engine=native", "run.eval_tasks=2"]
    words = ["train", "-c", "smoke", "-q", "--out", "run", *(word for change in changes for word in ("-s", change))]
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["run", "[]"]
