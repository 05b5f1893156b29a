"""A learner adapted to points of the user's own: predictions, errors and bands over seeds, after every inner step.

Shapes: R runs (seeds trained side by side), B tasks, K support points, N new inputs, S inner steps.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor

from maml_cli.adaptation.arrays import Arrays, plain_labels, read_arrays, read_labelled, shared_by_tasks
from maml_cli.adaptation.chunks import tasks_at_a_time
from maml_cli.adaptation.outputs import Outputs, band_over_seeds
from maml_cli.core import MetaParams, Points, expand_to_tasks, tensors
from maml_cli.errors import DataError
from maml_cli.experiment import Experiment
from maml_cli.tasks import Scaling

MAX_POINTS = 100_000
"""Largest number of support points of a task, as of `tasks.num_support`."""


class Learner(NamedTuple):
    """A trained learner.

    experiment: its functions.
    meta_params: of the R seeds whose predictions are averaged.
    scaling: from the user's units to those of the family.
    """

    experiment: Experiment
    meta_params: MetaParams
    scaling: Scaling = Scaling()

    @property
    def to_network(self) -> Scaling:
        """The map from the user's units to those of the network."""
        return self.experiment.family.scaling.after(self.scaling)


class Fitted(NamedTuple):
    """A learner adapted to tasks. Nothing is stored but the points: each call adapts anew, a hundred tasks at a time.

    learner: the trained learner.
    x, y: support points of B tasks.
    num_steps: S, the inner steps.
    labels: of the tasks, by the argument `task`; none if there was none.
    """

    learner: Learner
    x: Arrays
    y: Arrays
    num_steps: int
    labels: tuple[Any, ...] = ()

    def predict(self, x: Any, *, task: Any = None) -> Any:
        """Predictions at new inputs after the last inner step, the mean over seeds.

        x: inputs of one task, (N,) or (N, 1); for B tasks, (B, N), a list of B arrays, or (N,), which all tasks share.
        task: the label of the task of each input, if the tasks have labels.

        Returns an array of the kind, shape and dtype of `x`; (B, N) for inputs that tasks share. Raises DataError.
        """
        inputs = self._inputs(x, task)
        return inputs.restore(self.predictions(inputs)[-1].mean(dim=0))

    def steps(self, x: Any, *, task: Any = None) -> list[Any]:
        """Predictions as by `predict`, but after 0, 1, ..., S inner steps: a list of S + 1 arrays."""
        inputs = self._inputs(x, task)
        return [inputs.restore(step.mean(dim=0)) for step in self.predictions(inputs)]

    def band(self, x: Any, *, task: Any = None) -> tuple[Any, Any]:
        """The lower and upper end of a 90 % band over seeds, after the last inner step, as arrays like those of
        `predict`.

        Mean and standard deviation over seeds, as of a normal distribution (deep ensembles, Lakshminarayanan et al.
        2017, arXiv:1612.01474). Raises DataError for a single seed.
        """
        inputs = self._inputs(x, task)
        low, high = band_over_seeds(self.predictions(inputs)[-1])
        return inputs.restore(low), inputs.restore(high)

    def std(self, x: Any, *, task: Any = None) -> Any:
        """The standard deviation of new targets after the last inner step, an array like those of `predict`.

        Their noise is included; 95 % of them are expected within 1.96 of these of the prediction. With several seeds,
        the standard deviation of the mixture of their distributions. Raises DataError for a learner that was trained
        without `inner.ridge.noise`.
        """
        inputs = self._inputs(x, task)
        std = self.outputs(inputs).std()
        if std is None:
            raise DataError(
                "std: the run has no predictive distribution; train one with inner.head=ridge and inner.ridge.noise=0.1"
            )
        return inputs.restore(std)

    @property
    def support_error(self) -> Any:
        """Mean squared error on the support points after 0, 1, ..., S inner steps, of the mean prediction over seeds.

        A list of S + 1 numbers for one task, and for B tasks of S + 1 lists of B numbers.
        """
        errors = self._squared_errors(self.x, self.y)
        return errors.tolist() if self.x.is_batch else errors[:, 0].tolist()

    def error(self, x: Any, y: Any, *, task: Any = None) -> Any:
        """Mean squared error on points that the learner did not adapt to, as `support_error` gives it."""
        inputs, targets = self._inputs(x, task), self._inputs(y, task, name="y")
        _check_sizes(inputs, targets)
        errors = self._squared_errors(inputs, targets)
        return errors.tolist() if self.x.is_batch else errors[:, 0].tolist()

    def _inputs(self, x: Any, task: Any, name: str = "x") -> Arrays:
        """New inputs of each of the B tasks."""
        num_tasks = len(self.x.sizes)
        if task is not None:
            return self._labelled_inputs(x, task, name)
        inputs = read_arrays(x, name)
        if not inputs.is_batch and self.x.is_batch:
            return shared_by_tasks(inputs, num_tasks)
        if len(inputs.sizes) != num_tasks:
            raise DataError(f"{name}: is of {len(inputs.sizes)} tasks; the learner was adapted to {num_tasks}")
        return inputs

    def _labelled_inputs(self, x: Any, task: Any, name: str) -> Arrays:
        if not self.labels:
            raise DataError("task: the tasks have no labels; give them to adapt(x, y, task=...) first")
        return read_labelled(x, plain_labels(task), name, tasks=self.labels)

    def _squared_errors(self, x: Arrays, y: Arrays) -> Tensor:
        """Mean squared errors (S + 1, B)."""
        squared = (self.predictions(x).mean(dim=1) - y.values).square()
        owners = torch.arange(len(x.sizes)).repeat_interleave(x.sizes)
        return torch.zeros(len(squared), len(x.sizes), dtype=squared.dtype).index_add_(1, owners, squared) / x.sizes

    def predictions(self, inputs: Arrays) -> Tensor:
        """Predictions of each seed after 0, 1, ..., S inner steps, (S + 1, R, N), for the N inputs of all B tasks."""
        return self.outputs(inputs).predictions

    @torch.no_grad()
    def outputs(self, inputs: Arrays) -> Outputs:
        """Outputs of each seed for the N inputs of all B tasks."""
        experiment, meta_params, scaling = self.learner.experiment, self.learner.meta_params, self.learner.to_network
        num_runs = len(tensors(meta_params)[0])
        predictions = torch.empty(self.num_steps + 1, num_runs, len(inputs.values), dtype=torch.float64)
        variances = torch.empty_like(predictions[0]) if experiment.variance else None
        sizes = torch.stack([self.x.sizes, inputs.sizes], dim=1)
        for pair in torch.unique(sizes[inputs.sizes > 0], dim=0):
            tasks = (sizes == pair).all(dim=1).nonzero().squeeze(1)
            for chunk in tasks.split(tasks_at_a_time(meta_params, int(pair.max()))):
                new_x, positions = inputs.of_tasks(chunk)
                x, y = self.x.of_tasks(chunk)[0], self.y.of_tasks(chunk)[0]
                support = Points(scaling.x_to_network(x), scaling.y_to_network(y))
                support_x, support_y, grid = (
                    values.to(experiment.device, experiment.dtype).unsqueeze(-1).expand(num_runs, *values.shape, 1)
                    for values in (*support, scaling.x_to_network(new_x))
                )
                start = expand_to_tasks(meta_params, len(chunk))
                adapted = experiment.algorithm.unroll(start, Points(support_x, support_y), self.num_steps)
                for step, params in enumerate(adapted):
                    values = experiment.predict(params, grid)[..., 0].cpu().double()
                    predictions[step][:, positions] = scaling.y_to_user(values)
                if experiment.variance and variances is not None:
                    values = experiment.variance(params, grid)[..., 0].cpu().double()
                    variances[:, positions] = values / scaling.y_factor**2
        return Outputs(predictions, variances)


def adapt_to_points(learner: Learner, x: Any, y: Any, *, steps: int, task: Any = None) -> Fitted:
    """Adapt `learner` to the support points `x` and `y` of one or of many tasks by `steps` inner steps.

    x, y: (K,) or (K, 1) for one task, (B, K) for many, or a list of B arrays of any sizes.
    task: the label of the task of each point, for points (K,) of all tasks.

    Raises DataError for points that are not finite numbers or differ in number, and for more than MAX_POINTS in a task.
    """
    if task is None:
        inputs, targets, tasks = read_arrays(x, "x"), read_arrays(y, "y"), ()
    else:
        labels = plain_labels(task)
        tasks = tuple(dict.fromkeys(labels))
        inputs, targets = (read_labelled(value, labels, name, tasks=tasks) for name, value in (("x", x), ("y", y)))
    _check_sizes(inputs, targets)
    if (largest := int(inputs.sizes.max())) > MAX_POINTS:
        raise DataError(f"x: a task has {largest:,} points; a learner adapts to at most {MAX_POINTS:,}")
    if not inputs.sizes.all():
        raise DataError(f"x: task {int((inputs.sizes == 0).nonzero()[0])} has no points")
    return Fitted(learner, inputs, targets, steps, tasks)


def _check_sizes(x: Arrays, y: Arrays) -> None:
    if len(x.sizes) != len(y.sizes):
        raise DataError(f"x is of {len(x.sizes)} tasks, y of {len(y.sizes)}; give as many")
    differing = (x.sizes != y.sizes).nonzero()
    if len(differing):
        task = int(differing[0])
        where = f"of task {task} " if x.is_batch else ""
        raise DataError(f"x {where}has {int(x.sizes[task])} values, y {int(y.sizes[task])}; give as many")
