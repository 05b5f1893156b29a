"""The JSON schema of a config, the line that names it to editors, and configs to start from."""

import contextlib
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
        "inner: {alpha: {init: [0.005, 0.1], learned: true}}",
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
    assert cli("init", "new/folder/mine.yaml").code == cli("presets", "copy", "smoke", "new/too/a.yaml").code == 0
    for command in (("init",), ("presets", "copy", "smoke")):
        nowhere = cli(*command, "mine.yaml/mine.yaml")
        assert nowhere.code == 3 and "mine.yaml: cannot be written: " in nowhere.err
        assert nowhere.err.endswith("mine.yaml is not a directory\n")
    wrong = cli("init", "other.yaml", "-s", "outer.lr=-1")
    assert wrong.code == 2 and not Path("other.yaml").exists()


def _init_on_a_terminal(answers: bytes, folder: Path, file: str = "mine.yaml") -> tuple[int, str, str]:
    """Exit code, stdout and stderr of `maml init` with these answers."""
    ours, theirs = pty.openpty()
    command = [sys.executable, "-m", "maml_cli", "init", file]
    process = subprocess.Popen(
        command, stdin=theirs, stdout=subprocess.PIPE, stderr=subprocess.PIPE, cwd=folder, text=True
    )
    os.close(theirs)
    os.write(ours, answers)
    out, err = process.communicate(timeout=60)
    os.close(ours)
    return process.returncode, out, err


def test_the_five_questions_are_asked_on_a_terminal_and_again_after_a_wrong_answer(tmp_path: Path) -> None:
    code, out, err = _init_on_a_terminal(b"banana\nline\nmany\n7\n3\ntrue\n\n", tmp_path)
    assert code == 0 and out == "mine.yaml\n", err
    assert err.count("K, support points") == 2 and err.count("Family of functions") == 2 and "--set" not in err
    assert "]: tasks.family must be sine, line, " in err and "]: tasks.num_support must be a whole number" in err
    assert "Inner steps [1]: " in err
    config = load_config(str(tmp_path / "mine.yaml")).config
    expected = ["tasks.family=line", "tasks.num_support=7", "inner.steps=3", "inner.alpha.learned=true"]
    assert config == load_config("quickstart", expected).config != Config()


def test_the_family_data_is_asked_for_its_table_and_a_mixture_gets_an_example(tmp_path: Path) -> None:
    (tmp_path / "my days.csv").write_text("task,x,y\n")
    code, _, err = _init_on_a_terminal(b"mixture\ndata\nno.csv\ndata\nmy days.csv\n\n\n\n\n", tmp_path)
    assert code == 0, err
    assert "quickstart.yaml" not in err and "maml presets copy mmaml-2modes FILE\n" in err
    assert "no.csv: no such file; maml presets copy own-curves has an example\n" in err
    with contextlib.chdir(tmp_path):
        config = load_config("mine.yaml").config
    assert config == load_config("quickstart", ["tasks.family=data", "tasks.file=my days.csv"]).config


def test_a_file_that_cannot_be_created_is_refused_before_the_first_question(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, _, err = _init_on_a_terminal(b"", tmp_path, "file/mine.yaml")
    assert code == 3 and err == f"file/mine.yaml: cannot be written: {tmp_path / 'file'} is not a directory\n"
