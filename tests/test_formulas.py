"""Families of formulas: functions, distributions, closed forms, mixtures, and families that others add."""

import math
from collections.abc import Iterator
from importlib import metadata
from typing import Any

import numpy
import pytest
import scipy.stats
import torch

import maml_cli as maml
from maml_cli.config import Config
from maml_cli.errors import ConfigError
from maml_cli.formulas import FAMILIES, Family, Normal, Uniform, as_distribution, registry, to_plain
from maml_cli.tasks import ParametricFamily, make_bank, make_family, make_generator
from maml_cli.tasks.parametric_baselines import best_nonadaptive_error, conditional_mean, functions_at

X = torch.linspace(-5, 5, 41, dtype=torch.float64)


@pytest.fixture(autouse=True)
def _no_registered_families() -> Iterator[None]:
    yield
    registry._registered.clear()


def _family(**tasks: Any) -> ParametricFamily:
    family = make_family(dict(Config.model_validate({"tasks": tasks}).tasks))
    assert isinstance(family, ParametricFamily)
    return family


def _sample(family: ParametricFamily, num_tasks: int = 2000, num_support: int = 5, **options: Any) -> Any:
    return family.sampler.sample(
        [make_generator(0, "x")],
        num_tasks=num_tasks,
        num_support=num_support,
        num_query=5,
        dtype=torch.float64,
        **options,
    )


FORMULAS: dict[str, tuple[dict[str, float], Any]] = {
    "sine": ({"amplitude": 2, "frequency": 1.5, "phase": 0.3, "offset": 1}, lambda x: 2 * math.sin(1.5 * x - 0.3) + 1),
    "line": ({"slope": 2, "intercept": -1}, lambda x: 2 * x - 1),
    "quadratic": ({"curvature": 0.1, "sign": -0.2, "center": 1, "offset": 2}, lambda x: -0.1 * (x - 1) ** 2 + 2),
    "absolute": ({"slope": -2, "center": 1, "offset": 0.5}, lambda x: -2 * abs(x - 1) + 0.5),
    "tanh": ({"amplitude": 2, "center": -1, "offset": 0.5}, lambda x: 2 * math.tanh(x + 1) + 0.5),
    "harmonic": (
        {"amplitude": 2, "frequency": 1, "phase": 0.3, "amplitude2": 0.5, "frequency2": 3, "phase2": -1},
        lambda x: 2 * math.sin(x - 0.3) + 0.5 * math.sin(3 * x + 1),
    ),
    "sine_slope": (
        {"slope": 0.5, "amplitude": 1, "frequency": 1.5, "phase": 0.2, "offset": 5},
        lambda x: 0.5 * x + math.sin(1.5 * x - 0.2) + 5,
    ),
    "square": (
        {"amplitude": 2, "frequency": 1, "phase": 0.3, "offset": 1},
        lambda x: 3.0 if (x - 0.3) % (2 * math.pi) < math.pi else -1.0,
    ),
    "sawtooth": (
        {"amplitude": 2, "frequency": 1, "phase": 0.3, "offset": 1},
        lambda x: 2 * ((x - 0.3) % (2 * math.pi) / math.pi - 1) + 1,
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_family_of_fixed_parameters_is_its_formula(name: str) -> None:
    """Every parameter by hand; the mean is the function itself, and least squares recovers it from eight points."""
    parameters, formula = FORMULAS[name]
    family = _family(family=name, parameters=parameters)
    (batch, functions) = _sample(family, num_tasks=1, num_support=8)
    expected = torch.tensor([formula(x) for x in X.tolist()], dtype=torch.float64)
    torch.testing.assert_close(functions(X.reshape(1, 1, -1, 1)).flatten(), expected)
    mean = conditional_mean(family)
    assert mean is not None
    torch.testing.assert_close(mean(X), expected)
    baseline = family.baselines()["least_squares"]
    assert callable(baseline)
    torch.testing.assert_close(baseline(batch.support, functions).for_mse(X.reshape(1, 1, -1, 1)).flatten(), expected)


RANGES: dict[str, dict[str, Any]] = {
    "sine": {
        "amplitude": {"normal": [2, 0.5]},
        "frequency": [0.8, 1.2],
        "phase": {"normal": [0.5, 1.0]},
        "offset": [0, 2],
    },
    "line": {"slope": {"normal": [1, 1]}, "intercept": [0, 2]},
    "quadratic": {"sign": [-1, 3], "center": [0, 2]},
    "quadratic, normal": {"sign": {"normal": [0.5, 1]}, "center": {"normal": [1, 1]}},
    "absolute": {"slope": [0, 2], "center": [-2, 1]},
    "absolute, normal": {"slope": [0, 2], "center": {"normal": [-1, 1]}},
    "tanh": {"amplitude": [0, 3], "center": [-2, 4]},
    "harmonic": {"phase": [0, 2], "phase2": [0, 1], "frequency2": [1.8, 2.2]},
    "sine_slope": {},
    "square": {"phase": [0.5, 4.0], "offset": 1},
    "sawtooth": {"phase": [0.5, 9.0], "offset": 1},
}


@pytest.mark.parametrize("case", RANGES)
def test_the_mean_in_closed_form_is_that_of_draws(case: str) -> None:
    """Of 65,536 quasi-random functions, whose mean is within some 1e-3 of the expectation."""
    family = _family(family=case.partition(",")[0], parameters=RANGES[case])
    mean = conditional_mean(family)
    assert mean is not None
    draws = functions_at(family, 65_536)(X)
    torch.testing.assert_close(mean(X), draws.mean(dim=0), atol=4e-3 * float(draws.std()), rtol=0)


@pytest.mark.parametrize(
    ("name", "parameters"),
    [
        ("tanh", {"amplitude": [0, 3], "center": {"normal": [0, 1]}}),
        ("square", {"frequency": [1, 2]}),
        ("sawtooth", {"phase": {"normal": [0, 1]}}),
    ],
)
def test_a_mean_without_a_closed_form_leaves_its_row_out(name: str, parameters: dict[str, Any]) -> None:
    family = _family(family=name, parameters=parameters)
    assert family.baselines()["best_unadapted"] is None and family.best_nonadaptive_error("mse") is None


def test_the_two_modes_of_mmaml_cost_16_126_for_zero_and_15_814_without_adapting() -> None:
    """Zero: (E[A^2]/2 + E[a^2] E[x^2] + E[b^2]) / 2 = (4.251667 + 3 * 25/3 + 3) / 2; the mean explains a quarter of the
    4.251667 - 3.005669 that the sinusoid's own mean explains."""
    family = _family(family="mixture", mixture=[{"family": "sine"}, {"family": "line"}])
    zero = (4.251667 + 28) / 2
    assert zero == pytest.approx(16.1258, abs=1e-4)
    draws = functions_at(family, 2**17)(torch.linspace(-5, 5, 1001, dtype=torch.float64)[::10])
    assert draws.square().mean().item() == pytest.approx(zero, rel=0.02)  # the ends of the grid count double
    assert family.kinds == ["sine", "line"]
    mean = conditional_mean(family)
    assert mean is not None
    fine = torch.linspace(-5, 5, 20_001, dtype=torch.float64)
    explained = mean(fine).square().mean().item()
    assert explained == pytest.approx((4.251667 - 3.005669) / 4, rel=1e-3)
    assert zero - explained == pytest.approx(15.814, abs=1e-3)
    assert best_nonadaptive_error(family, "mse") == pytest.approx(15.814, rel=0.01)


def test_components_of_a_mixture_come_in_their_shares_and_each_task_is_of_one() -> None:
    """Weights 1, 2 and 5 of 20,000 tasks: 1/8, 1/4 and 5/8, to four standard deviations."""
    weights = {"line": 1, "tanh": 2, "sine": 5}
    mixture = [{"family": name, "weight": weight} for name, weight in weights.items()]
    functions = _sample(_family(family="mixture", mixture=mixture), num_tasks=20_000).functions
    kinds = functions.kind.flatten()
    for index, weight in enumerate(weights.values()):
        share = weight / 8
        assert abs((kinds == index).double().mean().item() - share) < 4 * math.sqrt(share * (1 - share) / 20_000)
    x = X.reshape(1, 1, -1, 1)
    line = functions.parameters[0]["slope"] * x + functions.parameters[0]["intercept"]
    of_line = (kinds == 0).nonzero()[:50, 0]
    torch.testing.assert_close(functions(x)[0, of_line], line[0, of_line])


@pytest.mark.parametrize("share", [0.0, 1e-9, 0.025, 0.5, 0.9])
def test_quantiles_and_moments_are_those_of_scipy(share: float) -> None:
    probability = torch.tensor([share], dtype=torch.float64)
    for ours, theirs in (
        (Uniform(-1.0, 3.0), scipy.stats.uniform(-1, 4)),
        (Normal(0.5, 0.2), scipy.stats.norm(0.5, 0.2)),
    ):
        if share or isinstance(ours, Uniform):
            assert ours.quantile(probability).item() == pytest.approx(theirs.ppf(share), rel=1e-8)
        assert (ours.mean, ours.variance) == pytest.approx((theirs.mean(), theirs.var()))
        assert ours.share_above_zero() == pytest.approx(1 - theirs.cdf(0))
        expected = theirs.expect(lambda u: numpy.abs(1.2 - u))
        assert ours.distance(torch.tensor(1.2, dtype=torch.float64)).item() == pytest.approx(expected, rel=1e-6)
    assert math.isfinite(Normal(0.0, 1.0).quantile(torch.zeros(1, dtype=torch.float64)).item())


@pytest.mark.parametrize("value", [2.0, [0.0, 1.0], {"normal": [0.5, 0.2]}])
def test_distributions_are_written_as_they_are_read(value: Any) -> None:
    assert to_plain(as_distribution(value)) == value


@pytest.mark.parametrize(
    ("tasks", "message"),
    [
        ({"family": "waves"}, "sawtooth, mixture or data; a package that adds it is not installed, got 'waves'"),
        (
            {"family": "lines"},
            "tasks.family must be sine, line, .* or data; did you mean line. Else a package that adds it is not "
            "installed, got 'lines'",
        ),
        ({"family": "line", "parameters": {"slop": 1}}, "tasks.parameters has slop; there are slope, intercept in fam"),
        ({"family": "line", "parameters": {"slope": [2, 1]}}, "has slope, which must have its low end first"),
        ({"family": "line", "parameters": {"slope": "2"}}, r"has slope, which must be a number, \[low, high\], or"),
        ({"family": "line", "parameters": {"slope": {"normal": [0, -1]}}}, "must have a standard deviation from 0"),
        ({"family": "line", "parameters": [1]}, "tasks.parameters must be a section"),
        ({"family": "line", "amplitude": 2}, "tasks.amplitude has no effect on the family line"),
        ({"amplitude": 2, "parameters": {"phase": 1}}, "tasks.amplitude has no effect beside tasks.parameters"),
        ({"family": "mixture"}, "tasks.mixture must list the components of the mixture"),
        ({"mixture": [{}, {}]}, "tasks.mixture needs tasks.family: mixture"),
        (
            {"family": "mixture", "mixture": [None, {}]},
            r"tasks.mixture\[0\] must be a section, with keys such as",
        ),
        ({"family": "mixture", "mixture": [{"wight": 1}, {}]}, r"tasks.mixture\[0\].wight: unknown key"),
        ({"family": "mixture", "mixture": [{"weight": 0}, {}]}, r"tasks.mixture\[0\].weight must be greater than 0"),
        ({"family": "mixture", "mixture": [{}]}, "must have at least 2 items|at least 2 items"),
        ({"family": "mixture", "mixture": [{}, {"family": "mixture"}]}, "tasks.mixture has mixture inside"),
        ({"family": "mixture", "mixture": [{}, {"parameters": {"x": 1}}]}, "tasks.mixture has x; there are amplitude"),
        ({"family": "mixture", "mixture": [{}, {}], "parameters": {"slope": 1}}, "tasks.parameters has no effect: the"),
        ({"noise": 1, "relative_noise": 1}, "tasks.relative_noise must be 0 where tasks.noise is not"),
        ({"test_x": 3}, r"tasks.test_x must be \[low, high\] with low below high"),
    ],
)
def test_families_and_parameters_that_do_not_fit_are_refused(
    tasks: dict[str, Any], message: str, tmp_path: Any
) -> None:
    import yaml

    from maml_cli.config import load_config

    file = tmp_path / "mine.yaml"
    file.write_text(yaml.safe_dump({"tasks": tasks}))
    with pytest.raises(ConfigError, match=message):
        load_config(str(file))


def test_relative_noise_is_a_multiple_of_the_amplitude_of_each_task() -> None:
    """Noise 0.1 A: of 4,000 tasks of 200 points each, the standard deviation is 0.1 |A| within 5 of its own errors."""
    for tasks in ({"relative_noise": 0.1}, {"relative_noise": 0.1, "family": "tanh"}):
        family = make_family(dict(Config.model_validate({"tasks": tasks}).tasks))
        batch, functions = family.sampler.sample(
            [make_generator(0, "x")], num_tasks=400, num_support=200, num_query=1, dtype=torch.float64
        )
        noise = batch.support.y - functions(batch.support.x)
        ratio = noise.square().mean(dim=-2).sqrt() / functions.amplitudes()[..., 0]
        assert (ratio - 0.1).abs().max().item() < 0.1 * 5 / math.sqrt(2 * 200)


def test_test_inputs_may_have_another_range_and_the_support_points_keep_theirs() -> None:
    for name in ("sine", "line"):
        tasks = Config.model_validate({"tasks": {"family": name, "test_x": [-5, 10]}}).tasks
        family = make_family(dict(tasks))
        sizes: Any = {"purpose": "test", "num_tasks": 30, "num_shots": 40, "num_grid": 7}
        (block,) = family.sampler.iter_test_blocks([make_generator(0, "test")], **sizes)
        plain = make_family(dict(tasks.model_copy(update={"test_x": None})))
        (same,) = plain.sampler.iter_test_blocks([make_generator(0, "test")], **sizes)
        assert torch.equal(block.points["support"].x, same.points["support"].x)
        torch.testing.assert_close(block.points["query"].x, (same.points["query"].x + 5) * 1.5 - 5)
        assert (
            block.points["query"].x.max() > 9
            and block.points["grid"].x.max() == 10
            and family.test_range == (-5.0, 10.0)
        )


def test_a_fixed_set_of_tasks_has_that_many_functions_and_ever_new_points() -> None:
    family = _family(family="line")
    bank = make_bank([make_generator(0, "task-bank")], num_tasks=7, num_parameters=2)
    batch, functions = _sample(family, num_tasks=300, bank=bank)
    slopes = functions.parameters[0]["slope"].flatten()
    assert {*slopes.tolist()} == {*(bank[0, :, 0] * 6 - 3).tolist()} and len(
        {*batch.support.x.flatten().tolist()}
    ) == 1500


def test_seeds_have_their_own_fixed_tasks_the_same_alone_and_side_by_side() -> None:
    from maml_cli.experiment import build_experiment

    tasks = {"family": "line", "count": 3}
    together = build_experiment(Config.model_validate({"tasks": tasks, "run": {"seeds": 2}}))
    alone = build_experiment(Config.model_validate({"tasks": tasks, "run": {"seed": 1}}))
    generators = [make_generator(seed, "tasks") for seed in (0, 1)]
    both = together.sample(generators)
    one = alone.sample([make_generator(1, "tasks")])
    again = together.sample([make_generator(1, "tasks")], runs=[1])
    assert torch.equal(both.query.y[1:], one.query.y) and torch.equal(one.query.y, again.query.y)
    assert not torch.equal(both.query.y[0], both.query.y[1])


CUBIC = Family(lambda x, scale: scale * x**3, {"scale": (0.1, 1.0)}, amplitude="scale")


def test_a_registered_family_is_trained_evaluated_and_found_by_its_name(tmp_path: Any) -> None:
    maml.register_family("cubic", CUBIC)
    config = {"tasks": {"family": "cubic", "parameters": {"scale": [0.5, 0.6]}, "relative_noise": 0.01}}
    config |= {"outer": {"steps": 2}, "run": {"eval_tasks": 2, "engine": "eager"}, "model": {"hidden": [4]}}
    run = maml.train(config, out=tmp_path / "run")
    (evaluation,) = maml.evaluate(run, tasks=200).results
    grid = numpy.linspace(-5, 5, 100)
    zero = evaluation.baselines["zero"]
    assert zero is not None and zero.grid.mse.mean == pytest.approx(0.3033 * float(numpy.mean(grid**6)), rel=0.03)
    assert evaluation.baselines["best_unadapted"] is None and evaluation.baselines["least_squares"] is None
    registry._registered.clear()
    with pytest.raises(Exception, match=r"must be sine, line, .*got .cubic"):
        maml.load(tmp_path / "run")


@pytest.mark.parametrize(
    ("name", "family", "message"),
    [
        ("sine", CUBIC, "family 'sine': the name is taken; choose another"),
        ("../x", CUBIC, "the name must be letters, digits and underscores"),
        ("mine", lambda x: x, "family mine: is function; it must be a maml_cli.Family"),
        ("mine", Family(CUBIC.function, {}), "family mine: must have a function and at least one parameter"),
        ("mine", Family(CUBIC.function, {"scale": "wide"}), "family mine: has scale, which must be a number"),
        ("mine", CUBIC._replace(amplitude="size"), "family mine: its amplitude, size, is none of its parameters"),
    ],
)
def test_families_that_are_not_complete_are_refused(name: str, family: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        maml.register_family(name, family)


def test_families_of_other_packages_are_entry_points_that_only_an_installation_declares(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """One that is good, one that cannot be imported, and one that is no family."""
    points = [
        metadata.EntryPoint("cubic", "tests.test_formulas:CUBIC", "maml_cli.families"),
        metadata.EntryPoint("broken", "no_such_package:FAMILY", "maml_cli.families"),
        metadata.EntryPoint("wrong", "tests.test_formulas:X", "maml_cli.families"),
    ]
    monkeypatch.setattr(metadata, "entry_points", lambda *, group: [p for p in points if p.group == group])
    assert _family(family="cubic").components[0].family == CUBIC
    for name, message in (
        ("broken", "no_such_package:FAMILY cannot be imported"),
        ("wrong", "is Tensor; it must be a"),
    ):
        with pytest.raises(ValueError, match=message):
            Config.model_validate({"tasks": {"family": name}})
