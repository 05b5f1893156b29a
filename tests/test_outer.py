"""One outer step: the update, clipping, the schedule, and the stop before anything that is not finite."""

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from maml_cli.config import Config
from maml_cli.core import MetaGradient, MetaParams, Points, TaskBatch
from maml_cli.engines import OUTER_OPTIMIZERS, SCHEDULES, StepResult, TrainState, make_outer_optimizer, take_outer_step
from maml_cli.engines.outer_step import average_clipped_tasks, finish_block, run_norms
from maml_cli.errors import DivergedError
from maml_cli.tasks import make_generator

# Two runs, three tasks, one weight and one alpha.
LOSSES = torch.tensor([[1.0, 2.0, 3.0], [4.0, 4.0, 7.0]])
GRADIENTS = MetaParams(
    {"w": torch.tensor([[1.0, 2.0, 6.0], [0.0, 0.0, 12.0]]).reshape(2, 3, 1, 1)},
    {"alpha": torch.tensor([[4.0, 4.0, 4.0], [0.0, 1.0, -1.0]]).reshape(2, 3, 1, 1, 1)},
)  # means over tasks: w 3 and 4, alpha 4 and 0


def _state(optimizer: str = "sgd", lr: float = 0.5, alpha_lr: float = 0.25) -> TrainState:
    meta_params = MetaParams({"w": torch.zeros(2, 1, 1)}, {"alpha": torch.zeros(2, 1, 1, 1)})
    learned = {
        "params": make_outer_optimizer(optimizer, [meta_params.params["w"]], lr),
        "rule": make_outer_optimizer("sgd", [meta_params.rule_params["alpha"]], alpha_lr),
    }
    return TrainState(meta_params, learned, [], 0, torch.zeros(2, dtype=torch.float64), torch.zeros(2), torch.zeros(2))


def _step(
    state: TrainState,
    losses: Tensor = LOSSES,
    gradients: MetaParams = GRADIENTS,
    *,
    clip_task_norm: float | None = None,
    **options: Any,
) -> StepResult:
    meta_gradient: MetaGradient = lambda meta_params, batch, step: (losses, gradients)  # noqa: E731
    average = None if clip_task_norm is None else average_clipped_tasks(meta_gradient, clip_task_norm)
    return take_outer_step(state, None, meta_gradient, average=average, **options)  # type: ignore[arg-type]


def _values(state: TrainState) -> list[list[float]]:
    return [state.meta_params.params["w"].flatten().tolist(), state.meta_params.rule_params["alpha"].flatten().tolist()]


def test_an_outer_step_descends_the_mean_over_tasks_with_a_rate_for_parameters_and_alpha() -> None:
    state = _state()
    result = _step(state)
    assert _values(state) == [[-0.5 * 3, -0.5 * 4], [-0.25 * 4, 0.0]]
    assert result.loss.tolist() == [2.0, 5.0] and result.grad_norm.tolist() == [5.0, 4.0]
    assert state.step == 1 and state.loss_sum.tolist() == [2.0, 5.0]
    _step(state)
    assert state.step == 2 and state.loss_sum.tolist() == [4.0, 10.0]


def test_the_schedule_scales_every_rate() -> None:
    state = _state()
    _step(state, scale=0.1)
    assert _values(state)[0] == pytest.approx([-0.15, -0.2]) and _values(state)[1] == pytest.approx([-0.1, 0.0])


def test_clipping_scales_the_gradient_of_a_run_to_the_largest_norm() -> None:
    """Run 0 has norm sqrt(3^2 + 4^2) = 5 and is halved; run 1 has norm 4 and, below 4.5, stays."""
    state = _state()
    result = _step(state, clip_norm=2.5)
    assert _values(state)[0] == pytest.approx([-0.75, -0.5 * 2.5]) and _values(state)[1] == pytest.approx([-0.5, 0.0])
    assert result.grad_norm.tolist() == [5.0, 4.0]
    state = _state()
    _step(state, clip_norm=4.5)
    assert _values(state)[0] == pytest.approx([-0.5 * 3 * 0.9, -2.0])


def test_per_task_clipping_bounds_the_norm_of_each_tasks_gradient() -> None:
    """Tasks of run 0 have gradients (1, 0), (2, 0), (3, 4): with limit 2.5 the last is halved, to (1.5, 2)."""
    gradients = MetaParams(
        {"w": torch.tensor([[1.0, 2.0, 3.0], [1.0, 1.0, 1.0]]).reshape(2, 3, 1, 1)},
        {"alpha": torch.tensor([[0.0, 0.0, 4.0], [0.0, 0.0, 0.0]]).reshape(2, 3, 1, 1, 1)},
    )
    state = _state(lr=1.0, alpha_lr=1.0)
    result = _step(state, gradients=gradients, clip_task_norm=2.5)
    assert _values(state)[0] == pytest.approx([-(1 + 2 + 1.5) / 3, -1.0])
    assert _values(state)[1] == pytest.approx([-2 / 3, 0.0])
    assert result.loss.tolist() == [2.0, 5.0] and state.skipped_tasks.tolist() == [0, 0]


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize("where", ["loss", "w", "alpha"])
def test_per_task_clipping_skips_tasks_that_are_not_finite(bad: float, where: str) -> None:
    """Without task 2 of run 1 its gradients are 0, 0 and its losses 4, 4; run 0 is as it was."""
    losses, gradients = (
        LOSSES.clone(),
        MetaParams(*({key: value.clone() for key, value in group.items()} for group in GRADIENTS)),
    )
    {"loss": losses, "w": gradients.params["w"], "alpha": gradients.rule_params["alpha"]}[where][1, 2] = bad
    state = _state()
    result = _step(state, losses, gradients, clip_task_norm=100.0)
    assert _values(state)[0] == pytest.approx([-1.5, 0.0]) and _values(state)[1] == pytest.approx([-1.0, -0.25 / 3])
    assert result.loss.tolist() == [2.0, 4.0] and state.skipped_tasks.tolist() == [0, 1]
    gradients.params["w"][1] = bad
    _step(state, losses, gradients, clip_task_norm=100.0)
    assert state.diverged.tolist() == [0, 2] and _values(state)[0] == pytest.approx([-3.0, 0.0])
    gradients.params["w"][0] = bad
    count = "query loss of 1" if where == "loss" else "gradient of 6"
    with pytest.raises(DivergedError, match=f"diverged at outer step 3: the {count} of 6 tasks is not finite"):
        _step(state, losses, gradients, clip_task_norm=100.0)


def test_weight_noise_perturbs_the_parameters_of_the_gradient_alone() -> None:
    """At w + noise the gradient of w^2 / 2 is w + noise: over many steps it averages to w, with the noise's deviation.

    4,000 draws of deviation 0.5: the mean is known to 0.008, the deviation (uniform: kurtosis 1.8) to 0.0035.
    """
    meta_params = MetaParams({"w": torch.full((2, 50, 40), 3.0)}, {"alpha": torch.ones(2, 1, 1, 1)})
    learned = {"params": make_outer_optimizer("sgd", [meta_params.params["w"]], 1.0)}
    state = TrainState(meta_params, learned, [], 0, torch.zeros(2), torch.zeros(2), torch.zeros(2))
    state.noise_generators = [make_generator(0, "x"), make_generator(1, "x")]

    def meta_gradient(start: MetaParams, batch: object, step: int) -> tuple[Tensor, MetaParams]:
        assert torch.equal(start.rule_params["alpha"], torch.ones(2, 1, 1, 1))
        return torch.ones(2, 1), MetaParams({"w": start.params["w"].unsqueeze(1)}, {})

    take_outer_step(state, None, meta_gradient, weight_noise=0.5)  # type: ignore[arg-type]
    noise = -meta_params.params["w"]  # w = 3 - 1 * (3 + noise)
    assert abs(noise.mean().item()) < 0.03 and noise.std().item() == pytest.approx(0.5, abs=0.015)
    assert noise.abs().max() <= 0.5 * math.sqrt(3) + 1e-6
    for run in range(2):  # each run by its own generator
        drawn = torch.rand(2000, generator=make_generator(run, "x"), dtype=torch.float64).reshape(50, 40)
        torch.testing.assert_close(noise[run].double(), (2 * drawn - 1) * 0.5 * math.sqrt(3), rtol=0, atol=1e-6)


def test_the_norm_of_a_run_is_over_parameters_and_alpha_together() -> None:
    gradients = MetaParams({"a": torch.tensor([[3.0, 0.0], [1.0, 1.0]])}, {"b": torch.tensor([[4.0], [1.0]])})
    assert run_norms(gradients).tolist() == pytest.approx([5.0, math.sqrt(3)])


def test_adam_is_algorithm_1_of_kingma_and_ba() -> None:
    """Kingma and Ba 2015, Algorithm 1, for gradients 3 then 1."""
    state = _state("adam", lr=0.1)
    m = v = w = 0.0
    for step, gradient in enumerate((3.0, 1.0), start=1):
        _step(
            state,
            gradients=MetaParams({"w": torch.full((2, 3, 1, 1), gradient)}, {"alpha": torch.zeros(2, 3, 1, 1, 1)}),
        )
        m, v = 0.9 * m + 0.1 * gradient, 0.999 * v + 0.001 * gradient**2
        w -= 0.1 * (m / (1 - 0.9**step)) / (math.sqrt(v / (1 - 0.999**step)) + 1e-8)
    assert _values(state)[0] == pytest.approx([w, w], rel=1e-6)


def test_schedules_go_from_one_to_zero() -> None:
    assert [SCHEDULES["linear"](step / 4) for step in range(5)] == [1.0, 0.75, 0.5, 0.25, 0.0]
    assert [SCHEDULES["cosine"](step / 4) for step in range(5)] == pytest.approx(
        [1.0, (1 + math.sqrt(0.5)) / 2, 0.5, (1 - math.sqrt(0.5)) / 2, 0.0]
    )


@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("loss", "diverged at outer step 8: the query loss of 2 of 6 tasks is not finite"),
        ("w", "diverged at outer step 8: the gradient of 2 of 6 tasks is not finite"),
        ("alpha", "diverged at outer step 8: the gradient of 2 of 6 tasks is not finite"),
    ],
)
def test_a_loss_or_gradient_that_is_not_finite_raises_before_the_update(bad: float, where: str, message: str) -> None:
    state = _state("adam")
    for _ in range(7):
        _step(state)
    losses, gradients = (
        LOSSES.clone(),
        MetaParams(*({key: value.clone() for key, value in group.items()} for group in GRADIENTS)),
    )
    target = {"loss": losses, "w": gradients.params["w"], "alpha": gradients.rule_params["alpha"]}[where]
    target[:, 2] = bad
    before, sums = _values(state), state.loss_sum.tolist()
    with pytest.raises(DivergedError, match=message) as error:
        _step(state, losses, gradients, clip_norm=1.0)
    assert error.value.outer_step == 8 and error.value.cause == ("query_loss" if where == "loss" else "gradient")
    assert _values(state) == before and state.step == 7 and state.loss_sum.tolist() == sums
    assert state.optimizers["params"].optimizer.state[state.meta_params.params["w"]]["step"].item() == 7


@pytest.mark.parametrize("where", ["loss", "w", "alpha"])
def test_a_run_that_diverges_is_frozen_and_the_other_continues_as_if_alone(where: str) -> None:
    state, undisturbed = _state("adam"), _state("adam")
    losses, gradients = (
        LOSSES.clone(),
        MetaParams(*({key: value.clone() for key, value in group.items()} for group in GRADIENTS)),
    )
    {"loss": losses, "w": gradients.params["w"], "alpha": gradients.rule_params["alpha"]}[where][1, 2] = math.nan
    _step(state)
    frozen = [values[1] for values in _values(state)]
    for _ in range(3):
        _step(state, losses, gradients, clip_norm=1.0)
        _step(state, clip_norm=1.0)  # frozen even if its gradients are finite again
    _step(undisturbed)
    for _ in range(6):
        _step(undisturbed, clip_norm=1.0)
    assert state.diverged.tolist() == [0, 2] and state.step == 7
    assert [values[1] for values in _values(state)] == frozen
    assert [values[0] for values in _values(state)] == [values[0] for values in _values(undisturbed)]


def test_a_gradient_whose_norm_overflows_raises() -> None:
    huge = MetaParams({"w": torch.full((2, 3, 1, 1), 1e30)}, {"alpha": torch.zeros(2, 3, 1, 1, 1)})
    with pytest.raises(DivergedError, match="the gradient overflows") as error:
        _step(_state(), gradients=huge)
    assert error.value.outer_step == 1 and error.value.cause == "gradient"


BLOCK = TaskBatch(*[Points(*[torch.zeros(5, 2, 3, 1, 1)] * 2)] * 2)  # five outer steps, two runs


def _finish(state: TrainState, completed: list[int], losses: Tensor = LOSSES) -> None:
    """A block of five outer steps, of ten in all with a linear schedule."""
    config = Config.model_validate({"outer": {"steps": 10, "schedule": "linear"}})
    finish_block(
        config, state, torch.tensor(completed), lambda meta_params, batch, step: (losses, GRADIENTS), BLOCK, None
    )


def test_the_end_of_a_block_counts_steps_and_sets_rates_and_freezes_diverged_runs() -> None:
    """After steps 1 to 6 of 10 the rates are those of the sixth: 1 - 5 / 10 of 0.5 and of 0.25."""
    state = _state("adam")
    _step(state)
    _finish(state, [5, 2])
    assert state.step == 6 and state.diverged.tolist() == [0, 1 + 2 + 1]
    assert state.optimizers["params"].steps_taken() == 6
    rates = [outer.optimizer.param_groups[0]["lr"] for outer in state.optimizers.values()]
    assert rates == [0.25, 0.125]
    _finish(state, [5, 0])
    assert state.step == 11 and state.diverged.tolist() == [0, 4]


@pytest.mark.parametrize(("bad", "cause"), [(math.nan, "query_loss"), (1.0, "gradient")])
def test_a_block_in_which_the_last_active_run_diverges_raises_at_its_step(bad: float, cause: str) -> None:
    """Run 1 diverged before; run 0 completed three of the steps 6 to 10, so that step 9 is not finite."""
    state = _state()
    state.step, state.diverged = 5, torch.tensor([0, 4])
    with pytest.raises(DivergedError, match="diverged at outer step 9: ") as error:
        _finish(state, [3, 0], torch.full((2, 3), bad))
    assert error.value.outer_step == 9 and error.value.cause == cause


@pytest.mark.parametrize("name", OUTER_OPTIMIZERS)
def test_outer_optimisers_by_their_formulas(name: str) -> None:
    """From w = 1 with rate 0.1 and gradients 3 and 1, as torch documents them: momentum 0.9, RMSprop's alpha 0.99, and
    in AdamW a decay of 0.01."""
    state = _state(name, lr=0.1)
    state.meta_params.params["w"].fill_(1.0)
    w, m, v, buffer = 1.0, 0.0, 0.0, 0.0
    for step, gradient in enumerate((3.0, 1.0), start=1):
        _step(
            state,
            gradients=MetaParams({"w": torch.full((2, 3, 1, 1), gradient)}, {"alpha": torch.zeros(2, 3, 1, 1, 1)}),
        )
        m, buffer = 0.9 * m + 0.1 * gradient, 0.9 * buffer + gradient
        v = (0.99 if name == "rmsprop" else 0.999) * v + (0.01 if name == "rmsprop" else 0.001) * gradient**2
        adam = m / (1 - 0.9**step) / (math.sqrt(v / (1 - 0.999**step)) + 1e-8)
        w -= {
            "sgd": 0.1 * gradient,
            "momentum": 0.1 * buffer,
            "rmsprop": 0.1 * gradient / (math.sqrt(v) + 1e-8),
            "adam": 0.1 * adam,
            "adamw": 0.1 * 0.01 * w + 0.1 * adam,
        }[name]
    assert _values(state)[0] == pytest.approx([w, w], rel=1e-6)
