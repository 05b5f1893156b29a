"""Configs: read strictly, refused with reasons, shown with origins."""

import math
from pathlib import Path
from typing import Any

import pytest

from maml_cli.config import Config, annotated_yaml, from_dict, load_config, override, strict_yaml, to_dict
from maml_cli.errors import ConfigError, FileError
from maml_cli.runs.directory import dump_yaml


def _load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, *overrides: str) -> Config:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    return load_config("mine.yaml", overrides).config


def _complaints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, *overrides: str) -> list[str]:
    with pytest.raises(ConfigError) as error:
        _load(tmp_path, monkeypatch, text, *overrides)
    assert error.value.exit_code == 2
    return str(error.value).splitlines()


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 1e-3),
        ("1E+3", 1e3),
        (".5", 0.5),
        ("-1.", -1.0),
        ("12", 12),
        ("-0", 0),
        ("017", "017"),
        ("1:30", "1:30"),
        ("on", "on"),
        ("yes", "yes"),
        ("True", True),
        ("~", None),
        ("0x10", "0x10"),
        ("1_000", "1_000"),
        (".", "."),
        ("e5", "e5"),
        (".inf", math.inf),
        ("'1'", "1"),
        ('"true"', "true"),
        ("2026-01-01", "2026-01-01"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    found = strict_yaml.parse(f"x: {text}").value["x"]
    assert found == value and type(found) is type(value)


def test_an_empty_file_is_the_defaults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _load(tmp_path, monkeypatch, "# nothing\n") == Config()


def test_values_arrive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "tasks: {amplitude: 2, phase: [0, 1]}\nouter: {lr: 1e-2, clip_norm: null}\nmodel: {hidden: [3, 4]}\n"
    config = _load(tmp_path, monkeypatch, text)
    assert config.tasks.amplitude == (2.0, 2.0) and config.tasks.phase == (0.0, 1.0)
    assert config.outer.lr == 0.01 and config.outer.clip_norm is None and config.model.hidden == [3, 4]


def test_all_that_is_wrong_is_said_at_once_with_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = """\
tasks:
  amplitude: [1]
  amplitude: 3
  x: [5, -5]
inner:
  step: 1
  lr: 1e-3
  adapt: body
  order: frist
  alpha:
    init: -0.01
    learned: on
    optimizer: adam
model:
  hidden: []
outer:
  lr: .nan
  steps: 1e3
  wheel: 1
run:
  seed: 1.5
  device: [cpu]
"""
    assert _complaints(tmp_path, monkeypatch, text) == [
        "mine.yaml:2:14: tasks.amplitude must be a number or [low, high], got [1]",
        "mine.yaml:3:3: tasks.amplitude: duplicate key, first on line 2",
        "mine.yaml:4:6: tasks.x must have its low end first, got [5, -5]",
        "mine.yaml:6:3: inner.step: unknown key; did you mean inner.steps?",
        "mine.yaml:7:3: inner.lr: unknown key; did you mean inner.alpha.lr?",
        "mine.yaml:8:10: inner.adapt body has nothing to adapt: model.hidden is empty",
        "mine.yaml:9:10: inner.order must be second, first or implicit, got 'frist'; did you mean first?",
        "mine.yaml:11:11: inner.alpha.init must be greater than 0, got -0.01",
        "mine.yaml:12:14: inner.alpha.learned must be true or false, got 'on'",
        "mine.yaml:13:16: inner.alpha.optimizer has no effect: alpha.learned is false",
        "mine.yaml:17:7: outer.lr must be a finite number, got nan",
        "mine.yaml:18:10: outer.steps must be a whole number, got 1000.0",
        "mine.yaml:19:3: outer.wheel: unknown key; known here: "
        "steps, tasks_per_step, optimizer, lr, schedule, meta_gradient, multi_step_loss_until, weight_noise, "
        "clip_task_norm, clip_norm",
        "mine.yaml:21:9: run.seed must be a whole number, got 1.5",
        "mine.yaml:22:11: run.device must be auto, cpu, cuda or mps, got ['cpu']; did you mean cpu?",
    ]


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("a: [1\n", "mine.yaml:2:1: not valid YAML: "),
        ("a: b: c\n", "mine.yaml:1:5: not valid YAML: "),
        ("\tinner: 1\n", "mine.yaml:1:1: not valid YAML: "),
        ("- 1\n", "mine.yaml:1:1: a config must be a mapping of sections"),
        ("just words\n", "mine.yaml:1:1: a config must be a mapping of sections"),
        ("inner: &a {steps: 1}\n", "mine.yaml:1:8: anchor &a: write the value out"),
        ("inner: *a\n", "mine.yaml:1:8: alias *a: write the value out"),
        ("inner: !!python/object:os.system {}\n", "mine.yaml:1:8: tag tag:yaml.org,2002:python/object:os.system"),
        ("inner: {steps: 1}\n---\nouter: {}\n", "mine.yaml:2:1: a second document"),
        ("? [1, 2]\n: 3\n", "mine.yaml:1:3: a key must be a single word"),
        ("inner: 3\n", "mine.yaml:1:8: inner must be a section with keys of its own, got 3"),
        ("inner:\n", "mine.yaml:1:7: inner must be a section with keys of its own, got null"),
        ("model: {hidden: 40}\n", "mine.yaml:1:17: model.hidden must be a list, such as [40, 40], got 40"),
        ("model: {hidden: [40, 0]}\n", "mine.yaml:1:22: model.hidden[1] must be at least 1, got 0"),
        ("tasks: {x: 1}\n", "mine.yaml:1:12: tasks.x must be [low, high] with low below high"),
        ("tasks: {phase: [0, .inf]}\n", "mine.yaml:1:16: tasks.phase must be a number or [low, high], got [0, inf]"),
        ("run: {device: mps, dtype: float64}\n", "mine.yaml:1:27: run.dtype must be float32 on mps"),
        (
            "inner: {alpha: {after_last_step: stop}}\n",
            "mine.yaml:1:34: inner.alpha.after_last_step has no effect: no inner step",
        ),
        (
            "inner: {adapt: context}\n",
            "mine.yaml:1:16: inner.adapt context has nothing to adapt: model.num_context is 0",
        ),
        (
            "model: {num_context: 2}\ninner: {adapt: head}\n",
            "mine.yaml:1:22: model.num_context has no effect: it does not adapt (inner.adapt), and stays zero",
        ),
        (
            "outer: {meta_gradient: reptile}\ninner: {order: implicit, proximal: 1}\n",
            "mine.yaml:2:16: inner.order has no effect: the meta-gradient of Reptile and of joint training does not",
        ),
        (
            "outer: {meta_gradient: reptile}\ninner: {adapt: head}\n",
            "mine.yaml:2:16: inner.adapt must be all: Reptile learns only what adapts",
        ),
        (
            "outer: {meta_gradient: reptile}\ninner: {alpha: {learned: true}}\n",
            "mine.yaml:2:26: inner.alpha.learned must be false: the meta-gradient of Reptile and of joint training",
        ),
        (
            "outer: {meta_gradient: joint}\ninner: {curvature: kronecker}\n",
            "mine.yaml:2:20: inner.curvature must be none: the meta-gradient of Reptile and of joint training",
        ),
        (
            "outer: {meta_gradient: joint, multi_step_loss_until: 5}\ninner: {steps: 2}\n",
            "mine.yaml:1:54: outer.multi_step_loss_until has no effect: the meta-gradient of Reptile and of joint",
        ),
        (
            "outer: {meta_gradient: joint}\nmodel: {num_context: 3}\n",
            "mine.yaml:2:22: model.num_context has no effect: without adapting, in joint training, a context stays",
        ),
        ("inner: {order: implicit}\n", "mine.yaml:1:8: inner.proximal must be greater than 0: inner.order is"),
        (
            "inner: {order: implicit, proximal: 1, alpha: {learned: true}}\n",
            "mine.yaml:1:16: inner.order implicit learns neither alpha nor curvature: a minimum does not depend on",
        ),
        (
            "inner: {order: implicit, proximal: 1, first_order_until: 3}\n",
            "mine.yaml:1:58: inner.first_order_until has no effect: inner.order is not second",
        ),
        (
            "inner: {order: implicit, proximal: 1, steps: 2}\nouter: {multi_step_loss_until: 3}\n",
            "mine.yaml:2:32: outer.multi_step_loss_until has no effect: inner.order is implicit",
        ),
        ("inner: {proximal: 200}\n", "mine.yaml:1:19: inner.proximal must be below 2 / alpha.init, or the proximal"),
        ("inner: {cg_steps: 50}\n", "mine.yaml:1:19: inner.cg_steps has no effect: inner.order is not implicit"),
        ("inner: {alpha: {per: layer}}\n", "mine.yaml:1:22: inner.alpha.per has no effect: alpha.learned is false"),
        (
            "tasks: {query_sampling: stratified, num_query: 1}\n",
            "mine.yaml:1:25: tasks.query_sampling has no effect: tasks.num_query is",
        ),
        (
            "inner: {order: implicit, proximal: 1, optimizer: adam}\n",
            "mine.yaml:1:50: inner.optimizer must be sgd where inner.order is implicit: Adam goes around a minimum",
        ),
        ("inner: {order: implicit, proximal: 1, loss: l1}\n", "mine.yaml:1:45: inner.loss must be mse or huber where"),
        (
            "outer: {multi_step_loss_until: 5}\n",
            "mine.yaml:1:32: outer.multi_step_loss_until has no effect: inner.steps is 1",
        ),
        ("inner: {alpha: {per_step: true}}\n", "mine.yaml:1:27: inner.alpha.per_step has no effect: alpha.learned"),
        (
            "model: {oracle: true}\ntasks: {offset: [0, 1]}\n",
            "mine.yaml:1:17: model.oracle must be false where tasks.offset varies",
        ),
        ("inner: {curvature_per_step: true}\n", "mine.yaml:1:29: inner.curvature_per_step has no effect: inner.curv"),
        ("inner: {alpha: {sign: positive}}\n", "mine.yaml:1:23: inner.alpha.sign has no effect: alpha.learned is"),
        ("run: {seed: -1}\n", "mine.yaml:1:13: run.seed must be at least 0, got -1"),
        ("x: \x07\n", "mine.yaml:1:4: not valid YAML: special characters are not allowed"),
    ],
)
def test_one_thing_wrong_is_one_line(
    text: str, complaint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = _complaints(tmp_path, monkeypatch, text)
    assert line.startswith(complaint)


def test_overrides_apply_in_order_and_say_which_is_wrong(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "inner: {steps: 2}\n"
    config = _load(
        tmp_path, monkeypatch, text, "inner.steps=3", "inner.steps=4", "tasks.phase=[0,1e-1]", "model={hidden: [7]}"
    )
    assert config.inner.steps == 4 and config.tasks.phase == (0.0, 0.1) and config.model.hidden == [7]
    assert _complaints(
        tmp_path, monkeypatch, text, "inner.steps=0", "x.y=1", "inner.steps.z=3", "run", "a=[1", "inner.loss="
    ) == [
        "--set inner.steps=0: inner.steps must be at least 1, got 0",
        "--set x.y=1: x: unknown key; did you mean tasks.x?",
        "--set inner.steps.z=3: steps is a value, not a section",
        "--set run: must be KEY=VALUE, such as inner.steps=5",
        "--set a=[1: not valid YAML: expected ',' or ']', but got '<stream end>'",
        "--set inner.loss=: inner.loss must be mse, l1 or huber, got null",
    ]


def test_a_file_that_is_missing_or_not_text_or_not_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("bytes.yaml").write_bytes(b"inner: \xff\n")
    with pytest.raises(ConfigError, match=r"bytes.yaml: not UTF-8 text \(byte 7\)"):
        load_config("bytes.yaml")
    with pytest.raises(FileError, match=r"nothing.yaml: no such file"):
        load_config("nothing.yaml")
    with pytest.raises(FileError, match="a directory"):
        load_config(str(tmp_path))
    with pytest.raises(ConfigError, match=r"quickstrat: no such preset; did you mean quickstart\?"):
        load_config("quickstrat")


def test_shown_with_the_origin_of_each_value_and_loads_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("inner:\n  steps: 2\n  loss: l1\nouter: {lr: 1e-5}\n")
    loaded = load_config("mine.yaml", ["inner.loss=huber", "tasks={x: [0, 1]}"])
    text = annotated_yaml(loaded)
    lines = {line.split(":")[0].strip(): line for line in text.splitlines() if "#" in line}
    assert lines["steps"].endswith("default")  # the last: outer.steps
    assert "  steps: 2 " in text and lines["lr"].split("#") == [lines["lr"].split("#")[0], " mine.yaml:4"]
    assert text.splitlines()[[line.strip().startswith("steps: 2") for line in text.splitlines()].index(True)].endswith(
        "# mine.yaml:2"
    )
    assert lines["loss"].endswith("# --set") and lines["x"].endswith("# --set") and lines["noise"].endswith("# default")
    Path("again.yaml").write_text(text)
    assert load_config("again.yaml").config == loaded.config


def test_a_config_survives_being_written(tmp_path: Path) -> None:
    changes = [
        "tasks.phase=3",
        "outer.lr=1e-05",
        "inner.alpha.learned=true",
        "inner.alpha.lr=1e-17",
        "tasks.noise=123456789.5",
    ]
    config = override(Config(), changes, label="x")
    assert from_dict(to_dict(config), label="x") == config
    (tmp_path / "x.yaml").write_text(dump_yaml(to_dict(config)))
    assert load_config(str(tmp_path / "x.yaml")).config == config


def test_a_config_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().inner.steps = 3  # type: ignore[misc]


def test_combinations_that_make_no_sense_come_all_at_once_and_none_is_made_up(tmp_path: Path) -> None:
    """Three at once, and the context, which is there, is not said to be missing."""
    file = tmp_path / "mine.yaml"
    file.write_text("inner: {order: implicit, loss: l1, optimizer: adam}\n")
    with pytest.raises(ConfigError) as error:
        load_config(str(file), [])
    assert [line.split(": ")[1].split()[0] for line in str(error.value).splitlines()] == [
        "inner.proximal",
        "inner.loss",
        "inner.optimizer",
    ]
    file.write_text("model: {num_context: 3}\ninner: {adapt: context}\nouter: {meta_gradient: joint}\n")
    with pytest.raises(ConfigError) as error:
        load_config(str(file), [])
    assert "model.num_context has no effect" in str(error.value) and "nothing to adapt" not in str(error.value)
