"""The JSON schema of a config, the line that names it to editors, and configs to start from."""

import json
import os
import pty
import subprocess
import sys
from pathlib import Path
from typing import Any

import jsonschema
import pytest

from maml_cli.config import Config, json_schema_text, load_config, presets, strict_yaml, to_dict
from tests.conftest import Cli

SCHEMA = json.loads(json_schema_text())


def _problems(text: str) -> list[str]:
    validator = jsonschema.Draft202012Validator(SCHEMA)
    return [error.message for error in validator.iter_errors(strict_yaml.parse(text).value)]


@pytest.mark.parametrize("name", presets.names())
def test_every_preset_names_the_schema_and_is_valid_by_it(name: str) -> None:
    file = presets.path(name)
    text = file.read_text()
    first, _, _ = text.partition("\n")
    assert first == "# yaml-language-server: $schema=schema.json"
    assert json.loads((file.parent / "schema.json").read_text()) == SCHEMA
    assert _problems(text) == []
    assert _problems(json.dumps(to_dict(load_config(name).config))) == []


@pytest.mark.parametrize(
    "text",
    [
        "tasks: {amplitude: 2, frequency: [0.5, 1], x: [-1, 1]}",
        "tasks: {num_support: [3, 20], family: mine, parameters: {slope: {normal: [0, 1]}, offset: [0, 1]}}",
        "tasks: {num_support: 3}",
        "run: {seeds: 3}",
        "run: {seeds: [1, 2]}",
        "run: {seeds: null}",
        "tasks: {mixture: [{family: line}, {family: sine, weight: 2}]}",
    ],
)
def test_numbers_ranges_and_lists_are_valid_where_configs_take_both(text: str) -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    assert _problems(text) == []


@pytest.mark.parametrize(
    "text",
    [
        "inner: {step: 1}",
        "inner: {steps: one}",
        "inner: {alpha: {init: 0}}",
        "tasks: {amplitude: [1, 2, 3]}",
        "tasks: {x: 3}",
        "model: {activation: mish}",
        "outer: {steps: 0}",
        "training: {}",
    ],
)
def test_unknown_keys_wrong_types_and_bounds_are_not_valid(text: str) -> None:
    assert len(_problems(text)) >= 1


def test_every_key_has_its_description_in_the_schema(cli: Cli) -> None:
    def described(section: dict[str, Any]) -> None:
        for name, value in section["properties"].items():
            if "$ref" in value:
                described(SCHEMA["$defs"][value["$ref"].rpartition("/")[2]])
            else:
                assert value["description"], name

    described(SCHEMA)
    assert json.loads(cli("config", "schema").out) == SCHEMA


def test_a_copied_preset_names_the_schema_by_its_path(cli: Cli) -> None:
    assert cli("presets", "copy", "smoke", "copy.yaml").code == 0
    first = Path("copy.yaml").read_text().partition("\n")[0]
    assert first == f"# yaml-language-server: $schema={(presets.directory() / 'schema.json').as_uri()}"
    assert load_config("copy.yaml").config == load_config("smoke").config


@pytest.mark.parametrize("name", presets.names())
def test_init_writes_a_commented_config_equal_to_the_preset(name: str, cli: Cli) -> None:
    result = cli("init", "mine.yaml", "--preset", name)
    assert (result.code, result.out) == (0, "mine.yaml\n")
    text = Path("mine.yaml").read_text()
    assert load_config("mine.yaml").config == load_config(name).config
    assert all(len(line) <= 100 for line in text.splitlines()[3:] if line.lstrip().startswith("#"))
    assert "  # inner steps in training\n  steps: " in text


def test_init_takes_overrides_and_keeps_files_that_exist(cli: Cli) -> None:
    assert cli("init", "mine.yaml", "-s", "outer.lr=0.5").code == 0
    assert load_config("mine.yaml").config == load_config("quickstart", ["outer.lr=0.5"]).config
    again = cli("init", "mine.yaml")
    assert (again.code, again.err) == (3, "mine.yaml: exists already; give a new file\n")
    nowhere = cli("init", "no/mine.yaml")
    assert nowhere.code == 3 and nowhere.err.startswith("no/mine.yaml: cannot be written: ")
    wrong = cli("init", "other.yaml", "-s", "outer.lr=-1")
    assert wrong.code == 2 and not Path("other.yaml").exists()


def test_the_five_questions_are_asked_on_a_terminal_and_again_after_a_wrong_answer(tmp_path: Path) -> None:
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "maml_cli", "init", "mine.yaml"]
    process = subprocess.Popen(command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=tmp_path)
    os.close(theirs)
    os.write(ours, b"line\nmany\n7\n3\ntrue\n\n")
    out, err = process.communicate(timeout=60)
    os.close(ours)
    assert process.returncode == 0 and out == b"mine.yaml\n", err
    assert b"tasks.num_support must be a whole number" in err and err.count(b"K, support points") == 2
    assert b"Inner steps [1]: " in err
    config = load_config(str(tmp_path / "mine.yaml")).config
    expected = ["tasks.family=line", "tasks.num_support=7", "inner.steps=3", "inner.alpha.learned=true"]
    assert config == load_config("quickstart", expected).config != Config()
