"""Warm starts: `maml train --init`, the parameters of a trained run as the initial ones of another."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

import maml_cli as maml
from maml_cli.config import load_config
from maml_cli.experiment import build_experiment
from maml_cli.runs import Checkpoint, open_checkpoint, read_config, read_evaluations, read_losses, save_checkpoint
from maml_cli.tasks import make_generator
from maml_cli.training import warm_start
from tests.conftest import Cli

TINY = [
    *("outer.steps=4", "run.eval_tasks=4", "run.log_every=2", "run.eval_every=2", "run.checkpoint_every=2"),
    *("model.hidden=[6]", "run.engine=reference", "run.device=cpu"),
]


def _options(*changes: str) -> list[str]:
    return ["train", "-c", "smoke", "-q", *(word for key in [*TINY, *changes] for word in ("-s", key))]


def _train(cli: Cli, out: str, *changes: str, init: str | None = None) -> Path:
    result = cli(*_options(*changes), "--out", out, *(["--init", init] if init else []))
    assert result.code == 0, result.err
    return Path(out)


def _start(run: Path) -> Checkpoint:
    return open_checkpoint(run / "checkpoints" / "step-00000000.pt")


def _params(checkpoint: Checkpoint, section: str = "params") -> dict[str, Tensor]:
    values: dict[str, Tensor] = checkpoint.contents["meta_params"][section]
    return values


def _equal(actual: dict[str, Tensor], expected: dict[str, Tensor]) -> bool:
    return actual.keys() == expected.keys() and all(torch.equal(actual[key], expected[key]) for key in expected)


@pytest.mark.parametrize("changes", [[], ["run.seeds=2"], ["run.seeds=2", "run.side_by_side=false"]])
def test_the_errors_at_step_0_are_those_of_the_last_evaluation_of_the_other_run(changes: list[str], cli: Cli) -> None:
    source, run = _train(cli, "a", *changes), _train(cli, "b", *changes, init="a")
    *_, last = read_evaluations(source)
    first = read_evaluations(run)[0]
    assert (last.step, first.step) == (4, 0) and first == last._replace(step=0)
    assert _equal(_params(_start(run)), _params(open_checkpoint(source)))


def test_one_outer_step_is_that_of_the_other_parameters_by_hand(cli: Cli) -> None:
    """One inner step of 0.1 and one outer step of plain SGD, in float64, written out for a network 1-6-1 with tanh."""
    changes = [
        *("run.dtype=float64", "model.activation=tanh", "inner.alpha.init=0.1", "inner.steps=1", "inner.loss=mse"),
        *("outer.optimizer=sgd", "outer.lr=0.5"),
    ]
    source = open_checkpoint(_train(cli, "a", *changes))
    run = _train(cli, "b", *changes, "outer.steps=1", "run.seed=7", init="a")
    config = open_checkpoint(run).config
    batch = build_experiment(config).sample([make_generator(7, "tasks")])
    start = {key: value[0].clone().requires_grad_() for key, value in _params(source).items()}

    def error(params: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        hidden = torch.tanh(x @ params["hidden0.w"] + params["hidden0.b"])
        return (hidden @ params["head.w"] + params["head.b"] - y).square().mean()

    losses = []
    for task in range(config.outer.tasks_per_step):
        support, query = ([points.x[0, task], points.y[0, task]] for points in (batch.support, batch.query))
        gradients = torch.autograd.grad(error(start, *support), [*start.values()], create_graph=True)
        adapted = {key: start[key] - 0.1 * gradient for key, gradient in zip(start, gradients, strict=True)}
        losses.append(error(adapted, *query))
    loss = torch.stack(losses).mean()
    outer = torch.autograd.grad(loss, [*start.values()])
    for (key, value), gradient in zip(start.items(), outer, strict=True):
        expected = value.detach() - 0.5 * gradient
        torch.testing.assert_close(_params(open_checkpoint(run))[key][0], expected, rtol=1e-10, atol=1e-12)
    assert read_losses(run)[0].loss == pytest.approx([loss.item()], rel=1e-12)


def test_all_but_the_parameters_starts_anew(cli: Cli) -> None:
    _train(cli, "a")
    warm, cold = _start(_train(cli, "b", init="a")).contents, _start(_train(cli, "c")).contents
    for key in ("optimizers", "generators", "noise_generators", "loss_sum", "skipped_tasks", "diverged", "step"):
        torch.testing.assert_close(warm[key], cold[key], rtol=0, atol=0)
    assert not _equal(warm["meta_params"]["params"], cold["meta_params"]["params"])


def test_a_run_of_one_seed_starts_all_three(cli: Cli) -> None:
    source, run = _train(cli, "a"), _train(cli, "b", "run.seeds=3", init="a")
    for key, value in _params(_start(run)).items():
        assert torch.equal(value, _params(open_checkpoint(source))[key].repeat(3, 1, 1))


def test_a_run_of_two_seeds_does_not_start_three(cli: Cli) -> None:
    _train(cli, "a", "run.seeds=2")
    for seeds, fitting in ((3, "1 seed, which starts all, or of 3"), (1, "1 seed")):
        result = cli(*_options(f"run.seeds={seeds}"), "--init", "a", "--out", "b")
        expected = f"run.init_from: a has 2 seeds, this config {seeds}; give a run of {fitting}; or set run.seeds=2\n"
        assert (result.code, result.err) == (2, expected) and not Path("b").exists()


def test_a_run_with_a_diverged_seed_starts_none(cli: Cli) -> None:
    contents: dict[str, Any] = open_checkpoint(_train(cli, "a", "run.seeds=[5,8]")).contents
    save_checkpoint(Path("a"), 4, contents | {"diverged": torch.tensor([0, 3])})
    result = cli(*_options("run.seeds=2"), "--init", "a", "--out", "b")
    assert result.code == 2
    assert result.err == "run.init_from: seed 8 of a diverged; give a run of which none did\n"


@pytest.mark.parametrize(
    ("key", "theirs", "ours"),
    [
        ("model.hidden", "[6]", "[8, 8]"),
        ("model.num_context", "0", "2"),
        ("model.context_learned", "false", "true"),
        ("model.oracle", "false", "true"),
        ("model.activation", '"relu"', '"tanh"'),
    ],
)
def test_a_network_of_another_shape_is_refused_with_both_values(key: str, theirs: str, ours: str, cli: Cli) -> None:
    shared = ["model.num_context=2"] if key == "model.context_learned" else []
    _train(cli, "a", *shared)
    result = cli(*_options(*shared, f"{key}={ours}"), "--init", "a", "--out", "b")
    expected = f"run.init_from: a has {key} {theirs}, this config {ours}; they must be the same\n"
    assert (result.code, result.err) == (2, expected) and not Path("b").exists()


def test_float32_parameters_are_converted_to_float64_and_the_log_says_so(cli: Cli) -> None:
    source = _train(cli, "a")
    options = [word for word in _options("run.dtype=float64") if word != "-q"]
    result = cli(*options, "--init", "a", "--out", "b")
    assert "  init     from a at outer step 4; converted from float32 to float64\n" in result.err
    expected = {key: value.double() for key, value in _params(open_checkpoint(source)).items()}
    assert _equal(_params(_start(Path("b"))), expected)


LEARNED = ["inner.alpha.learned=true", "inner.alpha.lr=0.01", "inner.curvature=kronecker"]


def test_learned_alphas_and_curvature_are_taken_over(cli: Cli) -> None:
    source, run = _train(cli, "a", *LEARNED), _train(cli, "b", *LEARNED, "inner.alpha.init=0.3", init="a")
    learned = _params(open_checkpoint(source), "rule_params")
    assert _equal(_params(_start(run), "rule_params"), learned)
    assert not _equal(learned, _params(_start(source), "rule_params"))


@pytest.mark.parametrize(
    "changes",
    [
        ["inner.alpha.per=layer"],
        ["inner.alpha.per_step=true", "inner.steps=2"],
        ["inner.alpha.sign=positive"],
        ["inner.alpha.learned=false", "inner.alpha.lr=null"],
    ],
)
def test_alphas_of_another_kind_start_as_the_config_says(changes: list[str], cli: Cli) -> None:
    _train(cli, "a", *LEARNED)
    changes = [*LEARNED[:2], "inner.alpha.init=0.3", *changes]
    warm, cold = _start(_train(cli, "b", *changes, init="a")), _start(_train(cli, "c", *changes))
    assert _equal(_params(warm, "rule_params"), _params(cold, "rule_params"))
    note = cli(*_options(*changes), "--init", "a", "--dry-run").out
    assert ("alpha starts as the config says" in note) == ("inner.alpha.learned=false" not in changes)


def test_training_again_from_the_config_gives_the_same_bytes_or_refuses_other_parameters(cli: Cli) -> None:
    _train(cli, "a")
    run = _train(cli, "b", init="a")
    again = ["train", "-q", "-c", "b/config.yaml"]
    assert cli(*again, "--out", "c").code == 0
    for name in ("config.yaml", "metrics.jsonl", "checkpoints/step-00000004.pt"):
        assert (Path("c") / name).read_bytes() == (run / name).read_bytes()
    shutil.rmtree("a")
    result = cli(*again, "--out", "d")
    assert (result.code, result.err) == (3, "run.init_from: a: no such run or checkpoint\n")
    _train(cli, "a", "run.seed=1")
    result = cli(*again, "--out", "d")
    assert result.code == 2 and result.err.startswith("run.init_sha256: a at outer step 4 has other parameters than")
    assert result.err.count("\n") == 1 and not Path("d").exists()
    config = read_config(_train(cli, "d", init="a"))
    assert config is not None and config.run.init_sha256 != load_config("b/config.yaml").config.run.init_sha256


def test_only_a_run_without_a_checkpoint_needs_the_other_run_to_be_resumed(cli: Cli) -> None:
    _train(cli, "a")
    run = _train(cli, "b", init="a")
    expected = {name: (run / name).read_bytes() for name in ("metrics.jsonl", "checkpoints/step-00000004.pt")}
    for file in [*(run / "checkpoints").iterdir(), run / "last.json"]:
        file.unlink()
    assert cli("train", "--resume", "b", "-q").code == 0
    assert {name: (run / name).read_bytes() for name in expected} == expected
    shutil.rmtree("a")
    (run / "checkpoints" / "step-00000004.pt").unlink()
    assert cli("train", "--resume", "b", "-q").code == 0
    assert {name: (run / name).read_bytes() for name in expected} == expected
    for file in [*(run / "checkpoints").iterdir(), run / "last.json"]:
        file.unlink()
    result = cli("train", "--resume", "b", "-q")
    assert (result.code, result.err) == (3, "run.init_from: a: no such run or checkpoint\n")


def test_the_path_in_a_checkpoint_is_not_opened_where_it_is_evaluated_or_resumed(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    _train(cli, "a")
    run = _train(cli, "b", init="a")
    opened = list[Path]()
    monkeypatch.setattr(warm_start, "open_checkpoint", lambda path: opened.append(path))
    (run / "checkpoints" / "step-00000004.pt").unlink()
    assert cli("eval", "b", "--tasks", "3").code == 0
    assert cli("train", "--resume", "b", "-q").code == 0
    assert cli("train", "--resume", "b", "--dry-run").code == 0
    maml.load("b")
    assert opened == []


def test_a_dry_run_writes_nothing_and_its_json_has_the_digest(cli: Cli) -> None:
    _train(cli, "a")
    result = cli(*_options(), "--init", "a", "--out", "b", "--dry-run", "--json")
    settings = json.loads(result.out)["config"]["run"]
    assert settings["init_from"] == "a" and len(settings["init_sha256"]) == 64 and not Path("b").exists()
    assert "init     from a at outer step 4\n" in cli(*_options(), "--init", "a", "--dry-run").out


def test_a_published_run_starts_a_training_from_python(cli: Cli) -> None:
    published = maml.load("best-5shot")
    changes = {key: getattr(published.config.model, key) for key in ("hidden", "activation", "num_context")}
    run = maml.train(
        {"model": changes, "outer": {"steps": 1}, "run": {"eval_tasks": 2, "engine": "eager", "device": "cpu"}},
        out="b",
        init="best-5shot",
    )
    assert _equal(_params(_start(Path("b"))), _params(published.checkpoint))
    assert run.config.run.init_from == "best-5shot"


def test_options_that_contradict_each_other_or_are_empty_are_refused(cli: Cli) -> None:
    _train(cli, "a")
    for options, message in (
        (["--resume", "a", "--init", "a"], "--resume: a resumed run keeps its config and directory; leave out"),
        (["--init", ""], "--init: an empty path; give a run, a checkpoint or the name of a published run"),
        (["--init", "nothing"], "run.init_from: nothing: no such run or checkpoint"),
        (["-s", f"run.init_sha256='{'0' * 64}'"], "--set run.init_sha256="),
    ):
        result = cli("train", *options)
        assert result.code in (2, 3) and result.err.startswith(message) and result.err.count("\n") == 1, result.err
