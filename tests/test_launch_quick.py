"""Starting is quick: what is slow to import is left out of a training."""

import subprocess
import sys
from pathlib import Path


def test_a_training_imports_neither_dynamo_nor_matplotlib(tmp_path: Path) -> None:
    """PyTorch imports torch._dynamo for every optimiser, for over a second; if this fails it does so in another way."""
    code = (
        "import sys; from maml_cli.cli import main\n"
        "try: main(['train', '-c', 'smoke', '-q', '-s', 'outer.steps=2', '-s', 'run.eval_tasks=2', '--out', 'run'])\n"
        "except SystemExit as stop: assert not stop.code, stop.code\n"
        "print(sorted({'torch._dynamo', 'matplotlib'} & sys.modules.keys()))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == ["run", "[]"]
