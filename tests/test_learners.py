"""The learners by hand, on a network of one unit: f(x) = v relu(u x + a) + c, with u = 1, a = 0, v = 2, c = 0.

On the support point (1, 3) f is 2, its error e = -1, and the gradient of e^2: -2 in v and c, and -2 v = -4 in u and a.
"""

from typing import Any

import pytest
import torch

from maml_cli.config import Config
from maml_cli.core import MetaParams, Params, Points, TaskBatch, expand_to_tasks
from maml_cli.engines import adjoint_meta_gradient
from maml_cli.engines.eager import adjoint_unsupported
from maml_cli.experiment import Experiment, build_experiment

KEYS = {"hidden0.w": "u", "hidden0.b": "a", "head.w": "v", "head.b": "c"}
PER_STEP = {"learned": True, "per_step": True}


def _experiment(inner: dict[str, Any], context: int = 0, **model: Any) -> tuple[Config, Experiment]:
    model = {"hidden": [1], "activation": "relu", "num_context": context} | model
    config = Config.model_validate({"model": model, "inner": inner, "run": {"dtype": "float64", "device": "cpu"}})
    return config, build_experiment(config)


def _points(x: float, y: float) -> Points:
    return Points(torch.full((1, 1, 1, 1), x, dtype=torch.float64), torch.full((1, 1, 1, 1), y, dtype=torch.float64))


def _start(
    experiment: Experiment, rule_params: dict[str, Any] | None = None, hidden: tuple[float, ...] = (1.0,)
) -> MetaParams:
    """The network above, its first weights `hidden`, with alphas as given, those of each inner step in a list."""
    meta_params = experiment.init_meta_params([0])
    values = {"hidden0.w": hidden, "hidden0.b": (0.0,), "head.w": (2.0,), "head.b": (0.0,)}
    params = {key: torch.tensor(value, dtype=torch.float64).reshape(1, -1, 1) for key, value in values.items()}
    alphas = {
        key: torch.tensor(value, dtype=torch.float64).reshape(1, -1, 1, 1) for key, value in (rule_params or {}).items()
    }
    return MetaParams(params, meta_params.rule_params | alphas)


def _adapted(experiment: Experiment, meta_params: MetaParams, steps: int) -> list[Params]:
    return list(experiment.algorithm.unroll(expand_to_tasks(meta_params, 1), _points(1.0, 3.0), steps))


def _values(params: Params) -> dict[str, float]:
    return {name: params[key].item() for key, name in KEYS.items()}


@pytest.mark.parametrize(
    ("inner", "rule_params", "expected"),
    [
        ({"adapt": "all"}, {"alpha": [0.1]}, {"u": 1.4, "a": 0.4, "v": 2.2, "c": 0.2}),
        ({"adapt": "head"}, {"alpha": [0.1]}, {"u": 1.0, "a": 0.0, "v": 2.2, "c": 0.2}),
        ({"adapt": "body"}, {"alpha": [0.1]}, {"u": 1.4, "a": 0.4, "v": 2.0, "c": 0.0}),
        (
            {"alpha": {"per": "parameter", "learned": True}},
            {"hidden0.w": [0.1], "hidden0.b": [0.2], "head.w": [0.3], "head.b": [-0.5]},
            {"u": 1.4, "a": 0.8, "v": 2.6, "c": -1.0},
        ),
    ],
    ids=["MAML", "ANIL", "BOIL", "Meta-SGD"],
)
def test_one_inner_step(inner: dict[str, Any], rule_params: dict[str, Any], expected: dict[str, float]) -> None:
    """phi = theta - alpha * gradient, on what adapts: v + 2 alpha, c + 2 alpha, u + 4 alpha, a + 4 alpha."""
    _, experiment = _experiment(inner)
    _, after = _adapted(experiment, _start(experiment, rule_params), 1)
    assert _values(after) == pytest.approx(expected, rel=1e-12)


def test_lslr_has_an_alpha_for_each_layer_and_step() -> None:
    """Alphas 0.1 and 0.25 lead to u = 1.4, a = 0.4, v = 2.5, c = 0.5. There f = 2.5 * 1.8 + 0.5 = 5 and e = 2.

    Hence gradients 4 * 1.8 = 7.2 in v, 4 in c, 4 * 2.5 = 10 in u and a; alphas 0.01 and 0.05 lead to 1.3, 0.3, 2.14,
    0.3.
    """
    _, experiment = _experiment({"steps": 2, "alpha": PER_STEP | {"per": "layer"}})
    meta_params = _start(experiment, {"hidden0": [0.1, 0.01], "head": [0.25, 0.05]})
    _, once, twice = _adapted(experiment, meta_params, 2)
    assert _values(once) == pytest.approx({"u": 1.4, "a": 0.4, "v": 2.5, "c": 0.5}, rel=1e-12)
    assert _values(twice) == pytest.approx({"u": 1.3, "a": 0.3, "v": 2.14, "c": 0.3}, rel=1e-12)


def test_cavia_adapts_the_context_alone_from_zero_for_each_task() -> None:
    """With weight t = 0.5 of one context input its gradient is -2 v t = -2: alpha 1 makes it 2; f(1) = 2 (1 + 1)."""
    _, experiment = _experiment({"adapt": "context"}, context=1)
    meta_params = _start(experiment, {"alpha": [1.0]}, hidden=(1.0, 0.5))
    for _ in range(2):
        before, after = _adapted(experiment, meta_params, 1)
        assert before["context"].item() == 0.0 and after["context"].item() == pytest.approx(2.0)
        assert all(torch.equal(before[key], after[key]) for key in KEYS)
        assert experiment.predict(after, torch.ones(1, 1, 1, 1).double()).item() == pytest.approx(4.0)


def test_a_learned_context_is_where_each_task_starts_and_has_a_meta_gradient() -> None:
    """With weight t = 1/2 of a context k, f(1) = 2 (1 + k / 2) = 2 + k and the loss (k - 1)^2: alpha 1/4 halves k - 1.

    From k = 3 to k = 2. The query loss (2 + k)^2 = 16 has the derivative 2 * 4 * 1/2 = 4 in the k of the start; in
    alpha, 2 * 4 * -2 (3 - 1) = -32. Before training k is 0, and so is that of a network of the random baseline.
    """
    _, experiment = _experiment({"adapt": "context", "alpha": {"learned": True}}, context=1, context_learned=True)
    first = experiment.init_meta_params([0]).params
    assert first["context"].item() == 0.0 and first["hidden0.w"].abs().min() > 0
    meta_params = _start(experiment, {"alpha": [0.25]}, hidden=(1.0, 0.5))
    meta_params.params["context"] = torch.full((1, 1, 1), 3.0, dtype=torch.float64)
    before, after = _adapted(experiment, meta_params, 1)
    assert (before["context"].item(), after["context"].item()) == (3.0, 2.0)
    batch = TaskBatch(_points(1.0, 3.0), _points(1.0, 0.0))
    losses, gradients = experiment.algorithm.meta_gradient(meta_params, batch, 0)
    assert losses.item() == 16.0 and gradients.params["context"].item() == pytest.approx(4.0)
    assert gradients.rule_params["alpha"].item() == pytest.approx(-32.0)


@pytest.mark.parametrize("engine", ["reference", "eager"])
def test_the_meta_gradient_of_anil(engine: str) -> None:
    """Query point (1, 0) after one step of 0.1: h = 1, v' = 2.2, c' = 0.2, f = 2.4, dL/df = 4.8.

    v' = v - 0.2 (v h + c - 3) h and c' = c - 0.2 (v h + c - 3): df/dv = h (1 - 0.2 h^2) - 0.2 h = 0.6, and df/dc too;
    df/dh = v' - 0.2 h (v h + (v h + c - 3) / h) - 0.2 v = 2.2 - 0.2 - 0.4 = 1.6, which is df/du and df/da.
    """
    config, experiment = _experiment({"adapt": "head"})
    meta_gradient = (
        experiment.algorithm.meta_gradient if engine == "reference" else adjoint_meta_gradient(config, experiment)
    )
    batch = TaskBatch(_points(1.0, 3.0), _points(1.0, 0.0))
    losses, gradients = meta_gradient(_start(experiment, {"alpha": [0.1]}), batch, 0)
    assert losses.item() == pytest.approx(2.4**2)
    assert _values(gradients.params) == pytest.approx({"u": 7.68, "a": 7.68, "v": 2.88, "c": 2.88}, rel=1e-12)


@pytest.mark.parametrize("engine", ["reference", "eager"])
def test_momentum_is_the_heavy_ball_and_is_differentiated_through(engine: str) -> None:
    """f = c at x = 0: the loss (c - 3)^2 has the gradient 2 e, e = c - 3. With a = 2 alpha and momentum 1/2 the heavy
    ball has e_{k+1} = (3/2 - a) e_k - e_{k-1} / 2 after e_1 = (1 - a) e_0: e_3 = (1 - 17/4 a + 4 a^2 - a^3) e_0.

    From c = 1, e_0 = -2, with alpha = 1/4, thus a = 1/2: e = -1, 0, 1/2. The query loss c^2 = 3.5^2 has the derivatives
    2 * 3.5 * (-1/4) = -7/4 in c, and 2 * 3.5 * (-17/4 + 8 a - 3 a^2) e_0 * 2 = 28 in alpha.
    """
    inner = {"steps": 3, "momentum": 0.5, "alpha": {"init": 0.25, "learned": True}}
    config = Config.model_validate(
        {"model": {"hidden": []}, "inner": inner, "run": {"dtype": "float64", "device": "cpu"}}
    )
    experiment = build_experiment(config)
    start = experiment.init_meta_params([0])._replace(
        params={"head.w": torch.zeros(1, 1, 1).double(), "head.b": torch.ones(1, 1, 1).double()}
    )
    steps = experiment.algorithm.unroll(expand_to_tasks(start, 1), _points(0.0, 3.0), 3)
    assert [params["head.b"].item() for params in steps] == pytest.approx([1.0, 2.0, 3.0, 3.5])
    assert not any(adjoint_unsupported(config))
    meta_gradient = (
        experiment.algorithm.meta_gradient if engine == "reference" else adjoint_meta_gradient(config, experiment)
    )
    losses, gradients = meta_gradient(start, TaskBatch(_points(0.0, 3.0), _points(0.0, 0.0)), 0)
    assert losses.item() == pytest.approx(3.5**2)
    assert gradients.params["head.b"].item() == pytest.approx(-7 / 4)
    assert gradients.rule_params["alpha"].item() == pytest.approx(28)


def test_momentum_sums_clipped_gradients_and_is_multiplied_by_the_alpha_of_each_step() -> None:
    """f = c at x = 0, loss (c - 8)^2: the gradients -16 and -13.5 are clipped to -10, so that v = -10, -15.

    Alphas 1/8 and 1/4 lead from 0 to 1.25 and to 1.25 + 3.75 = 5.
    """
    inner = {"steps": 2, "momentum": 0.5, "clip_norm": 10.0, "alpha": {"learned": True, "per_step": True}}
    config = Config.model_validate({"model": {"hidden": []}, "inner": inner, "run": {"dtype": "float64"}})
    experiment = build_experiment(config)
    zero, alphas = torch.zeros(1, 1, 1).double(), torch.tensor([0.125, 0.25]).double().reshape(1, 2, 1, 1)
    start = MetaParams({"head.w": zero, "head.b": zero}, {"alpha": alphas})
    steps = experiment.algorithm.unroll(expand_to_tasks(start, 1), _points(0.0, 8.0), 2)
    assert [params["head.b"].item() for params in steps] == pytest.approx([0.0, 1.25, 5.0])
