"""Evaluations by the kernel: the errors that PyTorch computes, for every learner that it supports."""

import ctypes
import math
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import torch
from torch import Tensor

from maml_cli.config import Config
from maml_cli.core import MetaParams, expand_to_tasks, map_tensors
from maml_cli.engines import (
    AdaptedPoints,
    EvaluationOptions,
    evaluation_kernel,
    evaluation_pays,
    evaluation_spec,
    kernel_build,
)
from maml_cli.engines.evaluation_spec import evaluation_spec as spec_of
from maml_cli.engines.evaluation_spec import has_evaluation_kernel
from maml_cli.engines.kernel_evaluation import (
    ARRAYS,
    EvaluationArgs,
    EvaluationKernel,
    PackedEvaluation,
    call_evaluation,
    pack_evaluation,
)
from maml_cli.errors import ConfigError
from maml_cli.evaluation import Protocol, learner_errors, sample_test_tasks
from maml_cli.evaluation.held_out import TestTasks as HeldOutTasks
from maml_cli.evaluation.task_errors import adapted_errors
from maml_cli.experiment import Experiment, build_experiment
from maml_cli.tasks import make_generator
from tests.conformance import combined_config, names_to_test, perturbed, single_values

pytestmark = pytest.mark.skipif(kernel_build.compiler() is None, reason="no C++ compiler on this machine")

SHOTS = 7  # not the number of support points in training


def _has_kernel(config: Config) -> bool:
    return kernel_build.compiler() is not None and evaluation_kernel(config, num_shots=SHOTS, steps=3) is not None


def _tasks(experiment: Experiment, num_shots: int = SHOTS, num_tasks: int = 5) -> HeldOutTasks:
    return sample_test_tasks(experiment.family, Protocol(num_tasks=num_tasks), num_shots)


@pytest.fixture
def with_kernel(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    """Decides whether evaluations are by the kernel or by PyTorch, however long they last."""
    return lambda wanted: monkeypatch.setattr(evaluation_spec, "MIN_TORCH_SECONDS", 0.0 if wanted else math.inf)


def _compare(
    config: Config, with_kernel: Callable[[bool], None], *, steps: int, num_shots: int = SHOTS, rtol: float = 1e-10
) -> None:
    """The errors of two runs, of those by PyTorch and by the kernel, and the predictions on the grid."""
    experiment = build_experiment(config)
    meta_params, tasks = perturbed(experiment.init_meta_params([0, 1])), _tasks(experiment, num_shots)
    results = list[tuple[list[Mapping[str, Tensor]], list[Tensor]]]()
    for wanted in (False, True):
        with_kernel(wanted)
        grids = list[Tensor]()

        def on_grid(
            step: int, predictions: Tensor, targets: Tensor, variance: Tensor, to: list[Tensor] = grids
        ) -> None:
            assert variance.isnan().all() and targets.shape == predictions.shape
            to.append(predictions)

        results.append(([*learner_errors(experiment, meta_params, tasks, steps=steps, on_grid=on_grid)], grids))
    (expected, expected_grids), (actual, actual_grids) = results
    assert len(actual) == steps + 1
    for step in range(steps + 1):
        for name, values in expected[step].items():
            torch.testing.assert_close(actual[step][name], values, rtol=rtol, atol=rtol)
        torch.testing.assert_close(actual_grids[step], expected_grids[step], rtol=rtol, atol=rtol)


def _names() -> list[str]:
    """Combinations with every value of an axis, one for each kernel: those that differ in the meta-gradient share one.

    The kernel of training, which has the same inner steps, takes every pair of values.
    """
    by_kernel = dict[str, str]()
    for name in names_to_test(lambda config: has_evaluation_kernel(config, num_shots=SHOTS, steps=3), single_values):
        by_kernel.setdefault(str(spec_of(combined_config(name), SHOTS)), name)
    return [*by_kernel.values()]


@pytest.mark.parametrize("name", _names())
def test_the_kernel_computes_the_errors_of_pytorch(name: str, with_kernel: Callable[[bool], None]) -> None:
    """Unoptimised, in float64, after as many inner steps as were trained, on more points than in training."""
    _compare(combined_config(name, seeds=2), with_kernel, steps=3)


@pytest.mark.parametrize("after_last_step", ["hold", "decay", "stop"])
@pytest.mark.parametrize("name", ["all-LSLR-second", "all-Meta-Curvature per step-second"])
def test_inner_steps_past_the_trained_ones_are_those_of_pytorch(
    name: str, after_last_step: str, with_kernel: Callable[[bool], None]
) -> None:
    config = combined_config(name, seeds=2)
    alpha = config.inner.alpha.model_copy(update={"after_last_step": after_last_step, "init": 0.1})
    config = config.model_copy(update={"inner": config.inner.model_copy(update={"alpha": alpha})})
    _compare(config, with_kernel, steps=6)


OTHERS: dict[str, tuple[dict[str, Any], int]] = {
    "relu, float32": ({"model": {"hidden": [40, 40]}, "run": {"dtype": "float32"}}, 10),
    "more steps than trained": ({"model": {"hidden": [5]}, "inner": {"steps": 2, "momentum": 0.5}}, 6),
    "linear, one point": ({"model": {"hidden": []}}, 1),
    "gelu, three layers": ({"model": {"hidden": [9, 17, 5], "activation": "gelu"}}, 3),
    "Reptile": ({"model": {"hidden": [5]}, "outer": {"meta_gradient": "reptile"}, "inner": {"steps": 4}}, 10),
}


@pytest.mark.parametrize("case", OTHERS.values(), ids=OTHERS)
def test_other_networks_and_numbers_of_points(
    case: tuple[dict[str, Any], int], with_kernel: Callable[[bool], None]
) -> None:
    sections, num_shots = case
    run = {"seeds": 2, "device": "cpu", "dtype": "float64"} | sections.get("run", {})
    config = Config.model_validate(sections | {"run": run})
    _compare(config, with_kernel, steps=6, num_shots=num_shots, rtol=1e-10 if config.run.dtype == "float64" else 1e-4)


CONFIG = combined_config("all-Meta-SGD-second", seeds=2)


def _kernel() -> EvaluationKernel:
    kernel = evaluation_kernel(CONFIG, num_shots=SHOTS, steps=3)
    assert kernel
    return kernel


def _call(*, own_params: bool = False, **options: Any) -> PackedEvaluation:
    experiment = build_experiment(CONFIG)
    start = expand_to_tasks(perturbed(experiment.init_meta_params([0, 1])), 5 if own_params else 1)
    if own_params:
        stream = make_generator(3, "x")
        start = MetaParams(*start)._replace(
            params={
                key: torch.randn(value.shape, generator=stream, dtype=value.dtype)
                for key, value in start.params.items()
            }
        )
    (chunk,) = _tasks(experiment).iter_chunks(experiment.network_inputs, num_runs=2)
    points = AdaptedPoints(chunk["support"], [chunk["grid"], chunk["query"]])
    return pack_evaluation(_kernel().kernel.spec, CONFIG, start, points, EvaluationOptions(3, **options))


@pytest.mark.parametrize("own_params", [False, True], ids=["shared", "of each task"])
def test_the_number_of_threads_changes_no_byte(own_params: bool) -> None:
    calls = [_call(own_params=own_params, num_threads=threads, num_predictions=100) for threads in (1, 2, 5, 40)]
    for call in calls:
        call_evaluation(_kernel().kernel, call.args)
    for call in calls[1:]:
        assert torch.equal(call.arrays["errors"], calls[0].arrays["errors"])
        assert torch.equal(call.arrays["predictions"], calls[0].arrays["predictions"])


def test_errors_are_in_the_unit_of_the_tasks() -> None:
    """A unit of 2 divides errors by 2 and their squares by 4, without rounding."""
    one, two = _call(), _call(unit=2.0)
    for call in (one, two):
        call_evaluation(_kernel().kernel, call.args)
    assert torch.equal(two.arrays["errors"] * torch.tensor([4.0, 2.0]), one.arrays["errors"])


def test_tasks_may_start_from_networks_of_their_own(with_kernel: Callable[[bool], None]) -> None:
    """As the untrained networks of an evaluation do."""
    experiment = build_experiment(CONFIG)
    rule, tasks = expand_to_tasks(experiment.init_meta_params([0]), 1), _tasks(experiment)

    def initial(count: int) -> MetaParams:
        params = experiment.init_params(make_generator(5, "x"), count)
        return rule._replace(params={key: value.unsqueeze(0) for key, value in params.items()})

    results = []
    for wanted in (False, True):
        with_kernel(wanted)
        results.append(adapted_errors(experiment, tasks, initial, num_runs=1, steps=2, chunk=3))
    for expected, actual in zip(*results, strict=True):
        for name, values in expected.items():
            torch.testing.assert_close(actual[name], values, rtol=1e-10, atol=1e-12)


COUNTS = [name for name, kind in EvaluationArgs._fields_[:8] if kind is ctypes.c_int64]


def test_the_kernel_itself_refuses_counts_and_lengths_that_do_not_fit() -> None:
    """Counts below 0, other than the arrays have, and so large that products overflow int64; each length one too short
    and too long; an array without an address; groups that are not all points."""
    kernel = _kernel().kernel

    def refused(change: Callable[[PackedEvaluation], None]) -> str:
        call = _call()
        call.arrays["errors"].fill_(7.0)
        change(call)
        with pytest.raises(ValueError) as refusal:
            call_evaluation(kernel, call.args)
        assert (call.arrays["errors"] == 7.0).all()
        return str(refusal.value)

    for name in COUNTS:
        for value in (-1, 2**62, -(2**63), 2**63 - 1):
            message = refused(lambda call, n=name, v=value: setattr(call.args, n, v))  # type: ignore[misc]
            assert message.startswith("the kernel refused")
    for index, name in enumerate(ARRAYS):
        for change in (-1, 1):

            def change_length(call: PackedEvaluation, index: int = index, change: int = change) -> None:
                call.args.lengths[index] += change

            assert f"{name} has not the length" in refused(change_length)
        if name != "predictions":  # of which none are wanted
            message = refused(lambda call, n=name: setattr(call.args, n, None))  # type: ignore[misc]
            assert f"{name} has not the length" in message
    for sizes in ([0, 107], [101, 7], [99, 7], [2**63 - 1, 7]):
        message = refused(lambda call, s=sizes: call.arrays["groups"].copy_(torch.tensor(s)))  # type: ignore[misc]
        assert message == "the kernel refused the counts of the call"


def test_an_array_of_another_dtype_or_shape_is_refused_before_the_call() -> None:
    experiment = build_experiment(CONFIG)
    (chunk,) = _tasks(experiment).iter_chunks(experiment.network_inputs, num_runs=2)
    points = AdaptedPoints(chunk["support"], [chunk["grid"]])
    start = expand_to_tasks(experiment.init_meta_params([0, 1]), 1)
    kernel = _kernel()
    with pytest.raises(ValueError, match=r"params is torch\.float32"):
        kernel.adapt(map_tensors(Tensor.float, start), points, EvaluationOptions(1))
    fewer = AdaptedPoints(type(chunk["support"])(*(value[:, :, 1:] for value in chunk["support"])), points.groups)
    with pytest.raises(ValueError, match=r"x is torch.float64 \(2, 5, 6, 1\).*takes torch.float64 \(2, 5, 7, 1\)"):
        kernel.adapt(start, fewer, EvaluationOptions(1))


def test_the_choice_depends_on_the_config_and_the_work_alone() -> None:
    """1-40-40-1 has 1,680 weights; 11 times 120 predictions and 10 steps of 3 passes on 10 points are 2.7 million
    multiply-adds a task, of which PyTorch does 5e9 a second."""
    config = Config.model_validate({})
    tasks = math.ceil(evaluation_spec.MIN_TORCH_SECONDS * 5e9 / (1680 * (11 * 120 + 3 * 10 * 10)))
    size = {"num_shots": 10, "steps": 10}
    assert evaluation_pays(config, num_tasks=tasks, **size)
    assert not evaluation_pays(config, num_tasks=tasks - 1, **size)
    eager = Config.model_validate({"run": {"engine": "eager"}})
    assert not evaluation_pays(eager, num_tasks=tasks, **size)


def test_a_learner_that_the_kernel_lacks_and_a_compiler_that_fails_are_evaluated_by_pytorch(
    with_kernel: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    with_kernel(True)
    lacking = combined_config("ridge-head, noise")
    assert evaluation_kernel(lacking, num_shots=SHOTS, steps=1) is None
    per_step = combined_config("all-LSLR-second")  # three steps, and no rule for a fourth
    assert evaluation_kernel(per_step, num_shots=SHOTS, steps=3) is not None
    assert evaluation_kernel(per_step, num_shots=SHOTS, steps=4) is None
    experiment = build_experiment(CONFIG)
    meta_params = experiment.init_meta_params([0, 1])
    expected = learner_errors(experiment, meta_params, _tasks(experiment), steps=1)
    monkeypatch.setenv("CXX", "false")
    actual = learner_errors(experiment, meta_params, _tasks(experiment), steps=1)
    message = capsys.readouterr().err
    assert "evaluating without a kernel: " in message and "could not compile the kernel" in message
    for name, values in expected[1].items():
        torch.testing.assert_close(actual[1][name], values)


def test_a_kernel_that_lacks_memory_is_one_message(
    with_kernel: Callable[[bool], None], monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*arguments: Any) -> None:
        raise MemoryError("the kernel cannot start 2 threads, or lacks memory; lower run.threads")

    with_kernel(True)
    monkeypatch.setattr(EvaluationKernel, "adapt", refuse)
    experiment = build_experiment(CONFIG)
    with pytest.raises(ConfigError, match=r"^evaluating by a kernel: the kernel cannot start 2 threads"):
        learner_errors(experiment, experiment.init_meta_params([0, 1]), _tasks(experiment), steps=1)


@pytest.mark.parametrize(("num_evaluations", "expected"), [(1, 3), (7, 3), (None, 5)])
def test_trainings_evaluate_with_their_threads_and_an_evaluation_by_itself_with_all_cores(
    num_evaluations: int | None,
    expected: int,
    with_kernel: Callable[[bool], None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with_kernel(True)
    monkeypatch.setattr("maml_cli.evaluation.chunk_errors.available_cores", lambda: 5)
    threads: list[int] = []
    adapt = EvaluationKernel.adapt

    def counted(self: EvaluationKernel, params: MetaParams, points: AdaptedPoints, options: EvaluationOptions) -> Any:
        threads.append(options.num_threads)
        return adapt(self, params, points, options)

    monkeypatch.setattr(EvaluationKernel, "adapt", counted)
    experiment = build_experiment(combined_config("all-Meta-SGD-second", seeds=2, threads=3))
    start = experiment.init_meta_params([0, 1])
    learner_errors(experiment, start, _tasks(experiment), steps=3, num_evaluations=num_evaluations)
    assert threads and {*threads} == {expected}
