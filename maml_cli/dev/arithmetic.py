"""The limit of the benchmark: the multiplications and additions of an outer step, and how fast the processor does them.

`limit` runs as many fused multiply-adds as an outer step needs and nothing else: no loads, no activations, no updates.
An engine's share of the processor's peak is the time of that over its own.
"""

import ctypes
import tempfile
from collections.abc import Callable, Sequence
from itertools import pairwise
from pathlib import Path

from maml_cli.config import Config, kernel_points, layer_widths
from maml_cli.engines import kernel_build

MULTIPLY_ADDS = "multiply-adds alone"
"""The contender of the benchmark that computes nothing else."""
SOURCE = Path(__file__).with_name("multiply_adds.cpp")


def task_multiply_adds(widths: Sequence[int], num_support: int, num_query: int, steps: int) -> int:
    """The multiply-adds of the products with weights in the second-order meta-gradient of one task.

    A layer from m to n units takes m n for each point in the forward pass, in the gradient of its weights and, except
    in the first layer, in the gradient of its inputs. In a Hessian-vector product each of the three has two tangents,
    but the inputs of the network have none (Pearlmutter 1994). Biases, activations and updates are not counted.
    """
    (first, *others) = (m * n for m, n in pairwise(widths))
    passes = 2 * first + 3 * sum(others)
    products = 2 * first + 6 * sum(others)
    return steps * num_support * (passes + products) + num_query * passes


def outer_step_multiply_adds(config: Config) -> int:
    """The multiply-adds of an outer step of `config`, whose inner steps are plain gradient steps."""
    per_task = task_multiply_adds(layer_widths(config), *kernel_points(config), config.inner.steps)
    return len(config.seeds) * config.outer.tasks_per_step * per_task


def limit(config: Config) -> Callable[[int], int]:
    """A function from a number of outer steps, whose multiply-adds it computes, to that number.

    Raises OSError if there is no C++ compiler.
    """
    count = outer_step_multiply_adds(config)
    library = load_multiply_adds()

    def advance(steps: int) -> int:
        library.multiply_adds(ctypes.c_int64(steps * count))
        return steps

    return advance


def load_multiply_adds() -> ctypes.CDLL:
    """The compiled multiply_adds.cpp; raises OSError if there is no C++ compiler."""
    compiler = kernel_build.compiler()
    if compiler is None:
        raise OSError("there is no C++ compiler")
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder) / "multiply_adds.so"
        command = [compiler, "-O3", *kernel_build.FLAGS, *kernel_build.LIBRARY_FLAGS, str(SOURCE), "-o", str(file)]
        code, _, errors = kernel_build.run_compiler(command)
        if code:
            raise OSError(errors.decode(errors="replace"))
        return ctypes.CDLL(str(file))
