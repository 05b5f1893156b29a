"""Arrays of the user's own: lists, numpy arrays and tensors, of one task or of many, read alike and given back alike.

All values of an argument are one flat tensor in float64, with the number of values of each task, so that tasks of
different sizes need no padding.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_cli.errors import DataError

Restore = Callable[[Tensor], Any]
"""Values (N,) in float64, in the order of those that were read -> an array of the kind, shape and dtype of them."""


class Arrays(NamedTuple):
    """The values of one argument, task by task.

    values: of all tasks, (N,), in float64 on the CPU.
    sizes: the number of values of each task, (B,).
    restore: gives other values of the same tasks the form of the argument.
    is_batch: whether the argument is of a number of tasks, instead of a single one.
    """

    values: Tensor
    sizes: Tensor
    restore: Restore
    is_batch: bool

    def of_tasks(self, tasks: Tensor) -> tuple[Tensor, Tensor]:
        """The values of `tasks`, indices (n,) of tasks that all have K values: (n, K), and their positions (n, K)."""
        starts = (self.sizes.cumsum(0) - self.sizes)[tasks]
        positions = starts.unsqueeze(-1) + torch.arange(int(self.sizes[tasks[0]]))
        return self.values[positions], positions


def read_arrays(value: Any, name: str) -> Arrays:
    """The values of an argument called `name`: numbers of one task, (K,) or (K, 1), or of many, (B, K) or (B, K, 1), or
    a list of arrays of one task each. A single number is one value of one task.

    Raises DataError for anything else, and for values that are not finite numbers.
    """
    if isinstance(value, range):
        value = list(value)
    if isinstance(value, list | tuple) and any(_has_items(item) for item in value):
        return _read_list(value, name)
    tensor, dtype = _as_tensor(value, name)
    if tensor.dim() > 3 or (tensor.dim() == 3 and tensor.shape[-1] != 1) or not tensor.numel():
        shape = tuple(tensor.shape)
        raise DataError(f"{name}: has shape {shape}; give (K,) or (K, 1) for one task, (B, K) or (B, K, 1) for many")
    is_batch = tensor.dim() == 3 or (tensor.dim() == 2 and tensor.shape[1] != 1)
    num_tasks = tensor.shape[0] if is_batch else 1
    sizes = torch.full((num_tasks,), tensor.numel() // num_tasks)
    values = tensor.detach().to("cpu", torch.float64).reshape(-1)
    _check_finite(values, sizes, name, is_batch=is_batch)
    return Arrays(values, sizes, _restorer(value, tensor, dtype), is_batch)


def plain_labels(task: Any) -> list[Any]:
    """Labels of tasks, from a list, an array or a tensor of them, as values that can be looked up."""
    return [label.item() if hasattr(label, "item") else label for label in task]


def read_labelled(value: Any, labels: Sequence[Any], name: str, *, tasks: Sequence[Any]) -> Arrays:
    """The values (N,) of an argument whose value `i` belongs to the task with the label `labels[i]`.

    tasks: the labels of the B tasks, in their order; a task may have no values. `restore` gives values in the order of
    `value`. Raises DataError for a label that is of no task.
    """
    flat = read_arrays(value, name)
    if flat.is_batch or len(labels) != len(flat.values):
        raise DataError(
            f"task: has {len(labels)} labels, {name} {len(flat.values)} values; give a label for each value"
        )
    index_of = {label: index for index, label in enumerate(tasks)}
    if unknown := [label for label in labels if label not in index_of]:
        raise DataError(f"task: {unknown[0]!r} is none of the tasks that the learner was adapted to")
    owners = torch.tensor([index_of[label] for label in labels])
    order = owners.argsort(stable=True)
    return Arrays(
        flat.values[order],
        torch.bincount(owners, minlength=len(tasks)),
        lambda values: flat.restore(torch.empty_like(values).scatter_(0, order, values)),
        True,
    )


def shared_by_tasks(single: Arrays, num_tasks: int) -> Arrays:
    """The values (N,) of one task for each of `num_tasks`: `restore` stacks theirs, (num_tasks, N)."""

    def restore(values: Tensor) -> Any:
        rows = [single.restore(row) for row in values.reshape(num_tasks, -1)]
        if isinstance(rows[0], Tensor):
            return torch.stack(rows)
        if isinstance(rows[0], list | float):
            return rows
        return numpy_module().stack(rows)

    return Arrays(single.values.repeat(num_tasks), single.sizes.repeat(num_tasks), restore, True)


def numpy_module() -> Any:
    """The module numpy, imported once an array of it is read or written."""
    import numpy

    return numpy


def _read_list(value: Sequence[Any], name: str) -> Arrays:
    """A list of arrays of one task each; a list of lists of one number is one task, (K, 1)."""
    if all(isinstance(item, list | tuple) and len(item) == 1 and not _has_items(item[0]) for item in value):
        column = read_arrays([item[0] for item in value], name)
        return column._replace(restore=lambda values: [[number] for number in column.restore(values)])
    tasks = []
    for index, item in enumerate(value):
        if not _has_items(item):
            raise DataError(f"{name}[{index}]: is a number among arrays; give an array for each task")
        task = read_arrays(item, f"{name}[{index}]")
        if task.is_batch:
            raise DataError(f"{name}[{index}]: has tasks in it; give (K,) or (K, 1) for each task of a list")
        tasks.append(task)
    sizes = torch.cat([task.sizes for task in tasks])

    def restore(values: Tensor) -> list[Any]:
        parts = torch.split(values, sizes.tolist())
        return [task.restore(part) for task, part in zip(tasks, parts, strict=True)]

    return Arrays(torch.cat([task.values for task in tasks]), sizes, restore, True)


def _has_items(value: Any) -> bool:
    """Whether a value has an axis: a list, or an array of one axis at least."""
    return isinstance(value, list | tuple) or len(getattr(value, "shape", ())) > 0


def _as_tensor(value: Any, name: str) -> tuple[Tensor, torch.dtype]:
    """The value as a tensor, and the dtype of results: its own, or float64 for integers and for lists."""
    if isinstance(value, Tensor):
        tensor = value
    elif isinstance(value, list | tuple | int | float):
        numbers = value if isinstance(value, list | tuple) else [value]
        for index, number in enumerate(numbers):
            if isinstance(number, bool) or (not isinstance(number, int | float) and not hasattr(number, "__float__")):
                raise DataError(f"{name}[{index}]: is {number!r}; give numbers")
        tensor = torch.tensor([float(number) for number in numbers], dtype=torch.float64)
        tensor = tensor if isinstance(value, list | tuple) else tensor[0]
    elif hasattr(value, "__array__"):
        array = numpy_module().asarray(value)
        if array.dtype.kind not in "fiu":
            raise DataError(f"{name}: has dtype {array.dtype}; give real numbers, or a list of arrays")
        is_known = array.dtype.kind == "f" and array.dtype.itemsize <= 8
        dtype = array.dtype.newbyteorder("=") if is_known else "float64"
        tensor = torch.from_numpy(numpy_module().array(array, dtype=dtype))
    else:
        raise DataError(f"{name}: is {type(value).__name__}; give a list, a numpy array or a tensor")
    if tensor.is_complex() or tensor.dtype == torch.bool:
        raise DataError(f"{name}: has dtype {tensor.dtype}; give real numbers")
    return tensor, tensor.dtype if tensor.is_floating_point() else torch.float64


def _restorer(value: Any, tensor: Tensor, dtype: torch.dtype) -> Restore:
    def restore(values: Tensor) -> Any:
        result = values.reshape(tensor.shape).to(tensor.device, dtype)
        if isinstance(value, Tensor):
            return result
        return result.tolist() if isinstance(value, list | tuple | int | float) else result.numpy()

    return restore


def _check_finite(values: Tensor, sizes: Tensor, name: str, *, is_batch: bool) -> None:
    bad = (~values.isfinite()).nonzero()
    if len(bad):
        index = int(bad[0])
        where = f"[{index // int(sizes[0])}, {index % int(sizes[0])}]" if is_batch else f"[{index}]"
        value = float(values[index])
        raise DataError(f"{name}{where}: is {'nan' if math.isnan(value) else value}; give finite numbers")
