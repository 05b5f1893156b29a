"""The Python interface: what the commands do, as functions for programs and notebooks.

>>> import maml_cli as maml
>>> run = maml.load("best-5shot")
>>> fitted = run.adapt([-4.0, -2.0, 0.0, 2.0, 4.0], [0.0, 1.8, 0.0, -1.8, 0.0])
>>> len(fitted.predict([-1.0, 0.5, 1.0]))
3
"""

import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from maml_cli import runtime
from maml_cli.config import Config, from_dict
from maml_cli.config import presets as preset_files
from maml_cli.core import MetaParams, Params, Points, inner_loop
from maml_cli.errors import DataError, InterruptedRun
from maml_cli.evaluation import EvaluationResult, OnTasks, Protocol, TrainedRun, evaluate_run, ignore_tasks, open_run
from maml_cli.formulas import FAMILIES, Family
from maml_cli.reporting import observe_training
from maml_cli.runs import find_run
from maml_cli.training import plan_training, run_session

families: Mapping[str, Family] = FAMILIES
"""The families of functions of this package: name -> formula and parameters."""
presets: Mapping[str, str] = {name: preset_files.summary(name) for name in preset_files.names()}
"""The presets: name -> a summary in one line; Config.from_yaml(name) reads one."""

StepSizes = float | Tensor | Mapping[str, float | Tensor] | Sequence["float | Tensor | Mapping[str, float | Tensor]"]
"""Step sizes of an inner loop: one for all, one for each parameter by its name, or a list of these, one for each inner
step, of which later steps use the last. A tensor is multiplied with the gradient."""


def load(path: str | os.PathLike[str], *overrides: str, device: str | None = None) -> TrainedRun:
    """A trained run: `maml.load("outputs/mine").adapt(x, y).predict(x_new)`.

    path: a run directory, a checkpoint file, the name of a published run, such as `best-5shot`, or `latest`, the
        newest run in outputs/ (`latest:2` the one before it; `./latest` is a path).
    overrides: other tasks to evaluate on, such as `tasks.phase=[0,1]`, or another step size, `inner.alpha.scale=0.5`.
    device: `cpu`, `cuda`, `mps` or `auto`; by default auto.

    Raises FileError, CheckpointError or ConfigError.

    >>> load("best-5shot").config.inner.steps
    5
    """
    return open_run(find_run(path), overrides=overrides, device=device)


def train(
    config: Config | Mapping[str, Any] | str | os.PathLike[str],
    *overrides: str,
    out: str | os.PathLike[str] | None = None,
    init: str | os.PathLike[str] | None = None,
    on_step: Callable[[int, float], None] = lambda step, loss: None,
    device: str | None = None,
    quiet: bool = True,
) -> TrainedRun:
    """Train a learner into a new run directory, as `maml train` does, and return the trained run.

    config: a preset by name, a YAML file, a Config, or a mapping of its sections, such as {"inner": {"steps": 5}}.
    overrides: changes of single keys, such as `outer.steps=1000`.
    out: the run directory; by default a new one in outputs/.
    init: a run, checkpoint, published run or `latest` whose parameters training starts from, in place of random ones.
    on_step: called after every block of outer steps with the number of steps taken and the mean query loss.
    device: replaces that of the config.
    quiet: whether messages and progress, which go to stderr, are left out.

    Ctrl-C saves a checkpoint and raises InterruptedRun; `maml train --resume` continues the run. Raises ConfigError,
    FileError and DivergedError.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     run = train("smoke", "outer.steps=2", "run.eval_tasks=2", "run.engine=eager", out=f"{folder}/run")
    >>> run.checkpoint.step
    2
    """
    source = from_dict(dict(config), label="config") if isinstance(config, Mapping) else config
    source = source if isinstance(source, Config) else os.fspath(source)
    start = None if init is None else os.fspath(init)
    plan = plan_training(source, overrides, out=Path(out) if out else None, resume=None, device=device, init=start)
    with runtime.torch_threads(torch.get_num_threads()):
        session = run_session(plan, quiet=quiet, on_step=on_step, observe=observe_training)
    if session.result.interrupted:
        raise InterruptedRun(
            f"{session.run}: stopped at outer step {session.result.step:,}, checkpoint saved; continue with: maml "
            f"train --resume {session.run}",
            exit_code=session.exit_code,
        )
    return open_run(session.run, device=device)


def evaluate(
    run: TrainedRun,
    *,
    tasks: int = 10_000,
    shots: int | Sequence[int] = (),
    steps: int | None = None,
    seed: int = 0,
    noisy_targets: bool = False,
    per_task: bool = False,
    on_tasks: OnTasks = ignore_tasks,
) -> EvaluationResult:
    """Errors of a trained run on held-out test tasks, after every inner step, with baselines, as by `maml eval`.

    tasks: number of test tasks, from 2.
    shots: K, or several, one evaluation for each; by default that of training, of a range its smallest and largest.
    steps: last inner step; by default 10, or those of training if they are more.
    seed: of the test tasks.
    noisy_targets: whether errors are measured against targets with the noise of the tasks.
    per_task: whether the error of every task is kept, for the rows of EvaluationResult.per_task.
    on_tasks: called with the name of a predictor, the number of tasks done, and that of all.

    Raises ConfigError.

    >>> result = evaluate(load("best-5shot"), tasks=20)
    >>> [len(evaluation.steps) for evaluation in result.results]  # K = 5, after 0, 1, ..., 10 inner steps
    [11]
    """
    chosen = (shots,) if isinstance(shots, int) else tuple(shots)
    for name, values, least in (("tasks", (tasks,), 2), ("shots", chosen, 1), ("steps", (steps or 0,), 0)):
        if any(value < least for value in values):
            raise DataError(f"{name}: {', '.join(map(str, values))}; must be at least {least}")
    with runtime.torch_threads(run.config.run.threads):
        protocol = Protocol(tasks, chosen, steps, seed, noisy_targets)
        return evaluate_run(run, protocol, keep_tasks=per_task, on_tasks=on_tasks)


def adapt(
    loss: Callable[[Params, Any], Tensor],
    params: Mapping[str, Tensor],
    support: Any,
    *,
    alpha: StepSizes,
    steps: int = 1,
    second_order: bool = True,
) -> Params:
    """Parameters of any small model after inner steps of gradient descent, differentiable in `params` and `alpha`.

    loss: (params, support) -> a scalar, or one loss for each task of a batch, which share no parameters.
    params: the initial parameters, tensors of any shape by name.
    support: anything that the loss takes.
    alpha: step sizes, see StepSizes.
    steps: number of inner steps.
    second_order: whether gradients through the result include second derivatives (MAML, Finn et al. 2017,
        arXiv:1703.03400, Algorithm 1) or take the inner gradients as constants (FOMAML, ibid. section 5.2).

    Within torch.no_grad() no graph is built. The inner loop is the one that the commands train and evaluate with.

    One step of 0.1 on (w - 3)^2 from w = 1 leads to 1 + 0.1 * 4 = 1.4; its derivative in w is 1 - 0.1 * 2 = 0.8:

    >>> w = torch.tensor(1.0, requires_grad=True)
    >>> adapted = adapt(lambda params, target: (params["w"] - target) ** 2, {"w": w}, 3.0, alpha=0.1)
    >>> round(adapted["w"].item(), 4), round(torch.autograd.grad(adapted["w"], w)[0].item(), 4)
    (1.4, 0.8)
    """

    def update(rule_params: Any, gradients: Params, step: int, state: Params) -> tuple[Params, Params]:
        at_step = alpha[min(step, len(alpha) - 1)] if isinstance(alpha, Sequence) else alpha
        rates = at_step if isinstance(at_step, Mapping) else dict.fromkeys(gradients, at_step)
        return {key: rates[key] * gradient for key, gradient in gradients.items()}, state

    if isinstance(alpha, Sequence) and not alpha:
        raise DataError("alpha: an empty list; give a step size")
    nothing = Points(torch.empty(0), torch.empty(0))
    *_, adapted = inner_loop.unroll(
        lambda current, points: loss(current, support),
        MetaParams(dict(params), {}),
        update,
        nothing,
        steps=steps,
        first_order=not second_order,
    )
    return adapted
