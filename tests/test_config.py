"""Configs: strict YAML, constraints and their messages, hints, origins, and the generated page."""

import math
import re
from pathlib import Path
from typing import Any

import pytest

from maml_cli.config import (
    Config,
    annotated_yaml,
    configs_readme,
    from_dict,
    key_table_markdown,
    load_config,
    override,
    presets,
    strict_yaml,
    to_dict,
)
from maml_cli.config.configs_page import PRESET_GROUPS
from maml_cli.config.fields import FIELDS, choices, section_model
from maml_cli.config.formatting import format_value
from maml_cli.config.suggestions import suggest_key, suggest_value
from maml_cli.config.synonyms import KEYS, VALUES
from maml_cli.dev.soak.misspellings import count_hints, misspellings
from maml_cli.errors import ConfigError, FileError
from maml_cli.runs.directory import dump_yaml

ROOT = Path(__file__).parent.parent


def _load(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, *overrides: str) -> Config:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text(text)
    return load_config("mine.yaml", overrides).config


def _leaf_keys() -> list[str]:
    return [key for key, field in FIELDS.items() if section_model(field) is None]


def _override_error(change: str) -> str:
    with pytest.raises(ConfigError) as error:
        override(Config(), [change], label="x")
    return str(error.value)


def _errors(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, *overrides: str) -> list[str]:
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
        pytest.param("9" * 5000, math.inf, id="5,000 digits, more than Python converts to an int"),
        ("'1'", "1"),
        ('"true"', "true"),
        ("2026-01-01", "2026-01-01"),
    ],
)
def test_scalars_are_those_of_yaml_1_2(text: str, value: Any) -> None:
    parsed = strict_yaml.parse(f"x: {text}").value["x"]
    assert parsed == value and type(parsed) is type(value)


def test_an_empty_file_is_the_default_config(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert _load(tmp_path, monkeypatch, "# nothing\n") == Config()


def test_numbers_ranges_null_and_lists_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = "tasks: {amplitude: 2, phase: [0, 1]}\nouter: {lr: 1e-2, clip_norm: null}\nmodel: {hidden: [3, 4]}\n"
    config = _load(tmp_path, monkeypatch, text)
    assert config.tasks.amplitude == (2.0, 2.0) and config.tasks.phase == (0.0, 1.0)
    assert config.outer.lr == 0.01 and config.outer.clip_norm is None and config.model.hidden == [3, 4]


def test_every_fault_is_reported_in_one_pass_in_the_order_of_lines_and_columns(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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
    assert _errors(tmp_path, monkeypatch, text) == [
        "mine.yaml:2:14: tasks.amplitude must be a number or [low, high], got [1]",
        "mine.yaml:3:3: tasks.amplitude: duplicate key, first on line 2",
        "mine.yaml:4:6: tasks.x must have its low end first, got [5, -5]",
        "mine.yaml:6:3: inner.step: unknown key; did you mean inner.steps?",
        "mine.yaml:7:3: inner.lr: unknown key; did you mean inner.alpha.init?",
        "mine.yaml:8:10: inner.adapt body has nothing to adapt: model.hidden is empty",
        "mine.yaml:9:10: inner.order must be second, first or implicit, got 'frist'; did you mean first?",
        "mine.yaml:11:11: inner.alpha.init must be greater than 0, got -0.01",
        "mine.yaml:12:14: inner.alpha.learned must be true or false, got 'on'; did you mean true?",
        "mine.yaml:17:7: outer.lr must be a finite number, got nan",
        "mine.yaml:18:10: outer.steps must be a whole number, got 1000.0; did you mean 1000?",
        "mine.yaml:19:3: outer.wheel: unknown key; known here: "
        "steps, tasks_per_step, task_blocks, optimizer, lr, schedule, meta_gradient, multi_step_loss_until, "
        "weight_noise, clip_task_norm, clip_norm",
        "mine.yaml:21:9: run.seed must be a whole number, got 1.5",
        "mine.yaml:22:11: run.device must be auto, cpu, cuda or mps, got ['cpu']; did you mean cpu?",
    ]


@pytest.mark.parametrize(
    ("text", "message"),
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
        ("inner: 3\n", "mine.yaml:1:8: inner must be a section, with keys such as steps, got 3"),
        ("inner:\n", "mine.yaml:1:7: inner must be a section, with keys such as steps, got null"),
        ("model: {hidden: 40}\n", "mine.yaml:1:17: model.hidden must be a list, such as [40, 40], got 40"),
        ("model: {hidden: [40, 0]}\n", "mine.yaml:1:22: model.hidden[1] must be at least 1, got 0"),
        ("tasks: {x: 1}\n", "mine.yaml:1:12: tasks.x must be [low, high] with low below high"),
        ("tasks: {phase: [0, .inf]}\n", "mine.yaml:1:16: tasks.phase must be a number or [low, high], got [0, inf]"),
        ("run: {device: mps, dtype: float64}\n", "mine.yaml:1:27: run.dtype must be float32 on mps"),
        (
            "inner: {alpha: {after_last_step: stop}}\n",
            "mine.yaml:1:34: inner.alpha.after_last_step has no effect: neither inner.alpha.per_step nor",
        ),
        (
            "inner: {adapt: context}\n",
            "mine.yaml:1:16: inner.adapt context has nothing to adapt: model.num_context is 0",
        ),
        (
            "model: {num_context: 2}\ninner: {adapt: head}\n",
            "mine.yaml:1:22: model.num_context has no effect: inner.adapt leaves the context as it is, where",
        ),
        (
            "outer: {meta_gradient: reptile}\ninner: {order: implicit, proximal: 1}\n",
            "mine.yaml:2:16: inner.order has no effect: the meta-gradient of Reptile and of joint training does not",
        ),
        (
            "outer: {meta_gradient: reptile}\ninner: {adapt: head}\n",
            "mine.yaml:2:16: inner.adapt must be all: Reptile trains only the parameters that adapt",
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
            "mine.yaml:2:22: model.num_context has no effect: joint training does not adapt the context",
        ),
        (
            "inner: {order: implicit}\n",
            "mine.yaml:1:8: inner.proximal must be greater than 0 where inner.order is implicit",
        ),
        (
            "inner: {order: implicit, proximal: 1, alpha: {learned: true}}\n",
            "mine.yaml:1:16: inner.order implicit cannot learn inner.alpha or inner.curvature: the inner minimum",
        ),
        (
            "inner: {order: implicit, proximal: 1, first_order_until: 3}\n",
            "mine.yaml:1:58: inner.first_order_until has no effect: inner.order is not second",
        ),
        (
            "inner: {order: implicit, proximal: 1, steps: 2}\nouter: {multi_step_loss_until: 3}\n",
            "mine.yaml:2:32: outer.multi_step_loss_until has no effect: inner.order is implicit",
        ),
        ("inner: {proximal: 200}\n", "mine.yaml:1:19: inner.proximal must be below 2 / inner.alpha.init, or inner"),
        (
            "inner: {proximal: 25, alpha: {init: [0.01, 0.1], learned: true}}\n",
            "mine.yaml:1:19: inner.proximal must be below 2 / inner.alpha.init, or inner",
        ),
        ("inner: {momentum: 0.5, proximal: 300}\n", "mine.yaml:1:34: inner.proximal must be below 2 * (1 + inner."),
        (
            "inner: {alpha: {init: [0.01, 0.1]}}\n",
            "mine.yaml:1:23: inner.alpha.init must be a number where inner.alpha.learned is false: a range is of",
        ),
        (
            "inner: {alpha: {init: [0, 0.1], learned: true}}\n",
            "mine.yaml:1:23: inner.alpha.init must be greater than 0, got [0, 0.1]",
        ),
        (
            "inner: {alpha: {init: [0.1, 0.01], learned: true}}\n",
            "mine.yaml:1:23: inner.alpha.init must have its low end first, got [0.1, 0.01]",
        ),
        (
            "inner: {alpha: {init: [0.1], learned: true}}\n",
            "mine.yaml:1:23: inner.alpha.init must be a number or [low, high], got [0.1]",
        ),
        ("inner: {cg_steps: 50}\n", "mine.yaml:1:19: inner.cg_steps has no effect: inner.order is not implicit"),
        (
            "inner: {alpha: {per: layer}}\n",
            "mine.yaml:1:22: inner.alpha.per has no effect: inner.alpha.learned is false",
        ),
        (
            "tasks: {query_sampling: stratified, num_query: 1}\n",
            "mine.yaml:1:25: tasks.query_sampling has no effect: tasks.num_query is",
        ),
        (
            "inner: {order: implicit, proximal: 1, optimizer: adam}\n",
            "mine.yaml:1:50: inner.optimizer must be sgd where inner.order is implicit: gradient descent",
        ),
        (
            "inner: {order: implicit, proximal: 1, loss: l1}\n",
            "mine.yaml:1:45: inner.loss must be mse, half_mse or huber where",
        ),
        (
            "outer: {multi_step_loss_until: 5}\n",
            "mine.yaml:1:32: outer.multi_step_loss_until has no effect: inner.steps is 1",
        ),
        ("inner: {alpha: {per_step: true}}\n", "mine.yaml:1:27: inner.alpha.per_step has no effect: inner.alpha"),
        (
            "model: {oracle: true}\ntasks: {offset: [0, 1]}\n",
            "mine.yaml:1:17: model.oracle must be false where tasks.offset varies",
        ),
        ("inner: {curvature_per_step: true}\n", "mine.yaml:1:29: inner.curvature_per_step has no effect: inner.curv"),
        ("inner: {alpha: {sign: positive}}\n", "mine.yaml:1:23: inner.alpha.sign has no effect: inner.alpha"),
        ("run: {seed: -1}\n", "mine.yaml:1:13: run.seed must be at least 0, got -1"),
        ("x: \x07\n", "mine.yaml:1:4: not valid YAML: special characters are not allowed"),
    ],
)
def test_one_fault_is_one_line_with_its_position(
    text: str, message: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (line,) = _errors(tmp_path, monkeypatch, text)
    assert line.startswith(message)


def test_overrides_apply_in_order_and_messages_quote_the_invalid_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "inner: {steps: 2}\n"
    config = _load(
        tmp_path, monkeypatch, text, "inner.steps=3", "inner.steps=4", "tasks.phase=[0,1e-1]", "model={hidden: [7]}"
    )
    assert config.inner.steps == 4 and config.tasks.phase == (0.0, 0.1) and config.model.hidden == [7]
    assert _errors(
        tmp_path, monkeypatch, text, "inner.steps=0", "x.y=1", "inner.steps.z=3", "run", "a=[1", "inner.loss="
    ) == [
        "--set inner.steps=0: inner.steps must be at least 1, got 0",
        "--set x.y=1: x: unknown key; did you mean tasks.x?",
        "--set inner.steps.z=3: inner.steps is a value, not a section",
        "--set run: must be KEY=VALUE, such as inner.steps=5",
        "--set a=[1: not valid YAML: expected ',' or ']', but got '<stream end>'",
        "--set inner.loss=: inner.loss must be mse, half_mse, l1 or huber, got null",
    ]


def test_missing_files_directories_and_bytes_are_refused_with_what_config_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
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


def test_annotated_yaml_has_one_line_per_value_with_its_origin_and_loads_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    Path("mine.yaml").write_text("inner:\n  steps: 2\n  loss: l1\nouter: {lr: 1e-5}\n")
    loaded = load_config("mine.yaml", ["inner.loss=huber", "tasks={x: [0, 1]}", f"run.seeds={list(range(40))}"])
    text = annotated_yaml(loaded)
    lines = {line.split(":")[0].strip(): line for line in text.splitlines() if "#" in line}
    assert lines["steps"].endswith("default")  # the last: outer.steps
    assert "  steps: 2 " in text and lines["lr"].split("#") == [lines["lr"].split("#")[0], " mine.yaml:4"]
    assert text.splitlines()[[line.strip().startswith("steps: 2") for line in text.splitlines()].index(True)].endswith(
        "# mine.yaml:2"
    )
    assert len(text.splitlines()) == len(FIELDS) and text.count("  # ") == len(_leaf_keys())
    assert lines["loss"].endswith("# --set") and lines["x"].endswith("# --set") and lines["noise"].endswith("# default")
    replaced = annotated_yaml(load_config("mine.yaml", ["inner={loss: l1}"]))
    assert "mine.yaml:2" not in replaced and "mine.yaml:4" in replaced
    Path("again.yaml").write_text(text)
    assert load_config("again.yaml").config == loaded.config


def test_a_config_with_extreme_numbers_is_the_same_after_writing_and_loading(tmp_path: Path) -> None:
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


def test_a_config_is_frozen() -> None:
    with pytest.raises(ValueError, match="frozen"):
        Config().inner.steps = 3  # type: ignore[misc]


@pytest.mark.parametrize(
    ("key", "values", "hint"),
    [
        ("run.device", ["gpu", "GPU", "cuda:0", "CUDA", "[gpu]", "nvidia", "cuda0"], "cuda"),
        ("run.device", ["metal", "Apple"], "mps"),
        (
            "run.dtype",
            ["float16", "half", "bfloat16", "bf16", "float", "fp32", "32", "torch.float32", "Float-32"],
            "float32",
        ),
        ("run.dtype", ["double", "fp64", "64", "torch.float64", "flaot64"], "float64"),
        ("outer.optimizer", ["Adam", "ADAM", "torch.optim.Adam", "adm"], "adam"),
        ("inner.alpha.optimizer", ["AdamW", "Adam-W"], "adamw"),
        ("model.activation", ["ReLU", "nn.ReLU", "torch.nn.ReLU"], "relu"),
        ("model.activation", ["swish", "SiLU"], "silu"),
        ("model.init", ["xavier", "Glorot Uniform", "glorot"], "glorot_uniform"),
        ("inner.loss", ["mae", "MAE", "L1", "l1_loss"], "l1"),
        ("inner.loss", ["l2", "MSE", "mse-loss"], "mse"),
        ("inner.order", ["1", "first-order", "FOMAML", "frist"], "first"),
        ("inner.order", ["2", "MAML", "second_order"], "second"),
        ("inner.order", ["Reptile"], "outer.meta_gradient: reptile"),
        ("inner.curvature", ["true", "Meta-Curvature"], "kronecker"),
        ("inner.curvature", ["null", "false"], "none"),
        ("inner.alpha.per", ["step"], "inner.alpha.per_step: true"),
        ("inner.alpha.after_last_step", ["none"], "null"),
        ("inner.alpha.learned", ["on", "Yes", "1", "'true'"], "true"),
        ("inner.alpha.learned", ["off", "0", "No"], "false"),
        ("outer.schedule", ["none", "null", "flat"], "constant"),
        ("outer.steps", ["1e3", "1000.0"], "1000"),
    ],
)
def test_common_words_for_a_value_are_answered_with_the_value(key: str, values: list[str], hint: str) -> None:
    for value in values:
        assert _override_error(f"{key}={value}").endswith(f"; did you mean {hint}?"), value


@pytest.mark.parametrize("change", ["run.dtype=complex", "run.device=[a, b]", "outer.steps=1.5", "inner.loss=[]"])
def test_a_value_like_no_other_has_no_hint(change: str) -> None:
    assert "did you mean" not in _override_error(change)


@pytest.mark.parametrize(
    ("hint", "keys"),
    [
        (
            "inner.alpha.init",
            ["inner.lr", "inner_lr", "innerLR", "inner.learning_rate", "inner.step_size", "update_lr"],
        ),
        (
            "inner.alpha.after_last_step",
            ["beyond", "inner.beyond", "inner.alpha.beyond", "inner.alpha.after_last_stpe"],
        ),
        ("inner.alpha.lr", ["alpha_lr", "inner.alpha.learning_rate"]),
        ("inner.alpha", ["alpha", "inner.alpah"]),
        ("tasks.num_support", ["k_shot", "K", "shots", "tasks.shots", "tasks.numSupport", "num_suport"]),
        ("tasks.query_sampling", ["tasks.query"]),
        ("model.num_context", ["model.context"]),
        ("inner.recompute_activations", ["inner.recompute"]),
        ("outer.multi_step_loss_until", ["outer.multi_step_until"]),
        ("outer.tasks_per_step", ["meta_batch_size", "outer.meta_batch_size", "batch-size", "num_tasks"]),
        ("outer.lr", ["meta_lr", "outer.learning_rate", "outer_lr"]),
        ("outer.clip_norm", ["grad_clip", "outer.max_grad_norm"]),
        ("run.device", ["gpu", "run.cuda"]),
        ("run.seed", ["seed", "tasks.seed"]),
        ("inner.alpha.lr or outer.lr", ["lr", "run.lr"]),
        ("inner.steps or outer.steps", ["steps"]),
        ("inner.loss", ["loss", "outer.loss"]),
    ],
)
def test_common_names_of_a_key_are_answered_with_the_key(hint: str, keys: list[str]) -> None:
    for key in keys:
        assert _override_error(f"{key}=1").endswith(f"{key}: unknown key; did you mean {hint}?"), key


def test_synonyms_mean_what_the_schema_has() -> None:
    for key, words in VALUES.items():
        for meant in words:
            second_key, colon, value = meant.partition(": ")
            is_choice_of_second_key = bool(colon) and value in [*choices(FIELDS[second_key]), "true"]
            assert meant in choices(FIELDS[key]) or is_choice_of_second_key, (key, meant)
        listed = [word for synonyms in words.values() for word in synonyms]
        assert len(set(listed)) == len(listed) and not set(listed) & set(choices(FIELDS[key])), key
        for meant, synonyms in words.items():
            assert {suggest_value(key, word, choices(FIELDS[key])) for word in synonyms} == {meant}
    listed = [name for names in KEYS.values() for name in names]
    assert len(set(listed)) == len(listed) and not set(listed) & FIELDS.keys() and KEYS.keys() <= FIELDS.keys()
    for meant, names in KEYS.items():
        assert {suggest_key(name, list(FIELDS)) for name in names} == {meant}


def test_whole_numbers_that_python_cannot_print_or_turn_into_floats_are_refused_in_one_line() -> None:
    for key in ("tasks.amplitude", "tasks.noise", "outer.steps", "run.seeds", "run.seed", "inner.loss"):
        section, name = key.split(".")
        with pytest.raises(ConfigError) as error:
            from_dict({section: {name: 10**5000}}, label="x")
        assert str(error.value).startswith(f"x: {key} must be "), key
    assert format_value(10**5000) == "a number of thousands of digits" and format_value("x" * 100) == f"'{'x' * 56}..."


def test_from_dict_leaves_invalid_data_unchanged() -> None:
    data = {"inner": {"steps": 0, "loss": "mse"}, "x": 1}
    with pytest.raises(ConfigError):
        from_dict(data, label="x")
    assert data == {"inner": {"steps": 0, "loss": "mse"}, "x": 1}


def test_keys_of_several_lines_stay_on_one_line_of_the_message() -> None:
    with pytest.raises(ConfigError, match=r"^x: a\\nb: unknown key; known here: tasks, model, inner, outer, run$"):
        from_dict({"a\nb": 1}, label="x")


def test_the_key_table_has_a_row_for_each_key_with_default_values_and_meaning() -> None:
    table = [line for line in key_table_markdown().splitlines() if line.startswith("| `")]
    rows = {row[0].strip("`"): row[1:] for row in (line.strip("| ").split(" | ") for line in table)}
    assert list(rows) == _leaf_keys() and all(len(row) == 3 and all(row) for row in rows.values())
    assert rows["run.seed"][1] == "whole number from 0 below 2^63"
    assert rows["model.hidden"][1] == "list of up to 16 whole numbers from 1 to 8,192"
    assert rows["run.seeds"][1] == "whole number from 1 to 1,024, list of seeds, or null"
    assert rows["tasks.x"][1] == "[low, high], within +-1,000,000"
    assert rows["tasks.amplitude"][1] == "number or [low, high], within +-1e30"
    assert rows["inner.alpha.lr"][1] == "number above 0, or null"
    assert rows["model.init_gain"][1] == "number above 0 to 1,000,000"
    assert rows["inner.alpha.after_last_step"][1] == "hold, decay, stop, or null"
    assert rows["model.oracle"][:2] == ["`false`", "true, false"] and rows["inner.loss"][0] == "`mse`"


def test_every_preset_belongs_to_one_group_of_the_page() -> None:
    assert sorted(name for group in PRESET_GROUPS for name in group.names) == presets.names()


def test_the_messages_on_the_page_are_those_of_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (block,) = re.findall(r"```\n(mine.yaml.*?)```", configs_readme(), flags=re.S)
    text = "\n\n\n\n\ninner:\n  step: 1\n  alpha:\n    init: -0.01\n\nrun:\n  device: gpu\n"
    assert _errors(tmp_path, monkeypatch, text) == block.splitlines()


def test_configs_readme_is_current() -> None:
    """If this fails: make docs."""
    assert (ROOT / "configs" / "README.md").read_text(encoding="utf-8") == configs_readme()


def test_every_key_with_one_edit_has_a_hint_that_names_it() -> None:
    """A sample; by hand: a key with two neighbours that are one edit away has both."""
    assert count_hints(sample=1500) == (1500, [])
    assert suggest_key("run.sees", list(FIELDS)) == "run.seed or run.seeds"
    assert suggest_key("outer.rl", list(FIELDS)) == "outer.lr"
    assert set(misspellings("tasks.x")) >= {"tasks.y", "tasks.xx"} and "tasks." not in misspellings("tasks.x")
