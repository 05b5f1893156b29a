"""`maml schema`: documents of commands and lines of logs are valid by their schemas, and changed ones are not."""

import json
import re
from collections.abc import Iterator, Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import typer
from pydantic import ValidationError

from maml_cli.cli.app import app
from maml_cli.config import json_schema_text as config_schema_text
from maml_cli.documents import DOCUMENTS, json_schema, machine, to_json, trainings
from maml_cli.engines import TrainState
from maml_cli.sweeps import open_sweep, plan_sweep, read_space
from maml_cli.training import init_state
from tests.conftest import ROOT, TINY_RUN, Cli

SMALL = [*TINY_RUN, "-s", "run.checkpoint_every=4", "-s", "run.engine=eager", "-s", "outer.tasks_per_step=2"]
LOGS = ("metrics.jsonl", "timing.jsonl")
MAY_BE_ABSENT = {
    "ci95_seeds",
    "by_kind",
    "ensemble",
    "calibration",
    "notes",
    "band",
    "sd",
    "cuda",
    "skipped_tasks",
    "alpha",
    "alpha_grad",
}
FREE_NAMES = {"diverged", "baselines", "notes", "alpha", "alpha_grad"}
FREE_VALUES = {"config", "changes", "values", "left", "right"}


def _valid(cli: Cli, name: str, text: str) -> dict[str, Any]:
    """The document in `text`, which the schema that `maml schema NAME` prints must admit."""
    document: dict[str, Any] = json.loads(text, parse_constant=lambda word: pytest.fail(f"{word} is not JSON"))
    schema = json.loads(cli("schema", name).out)
    jsonschema.Draft202012Validator(schema).validate(document)
    return document


def _valid_log(cli: Cli, run: str | Path, name: str) -> list[dict[str, Any]]:
    return [_valid(cli, name, line) for line in (Path(run) / name).read_text().splitlines()]


def _nulls(value: Any) -> int:
    """The number of nulls anywhere in a document."""
    if isinstance(value, dict | list):
        return sum(map(_nulls, value.values() if isinstance(value, dict) else value))
    return value is None


def _commands(group: Any, words: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    """The words of every command that has the option --json."""
    for name, command in group.commands.items():
        if any("--json" in option.opts for option in command.params):
            yield (*words, name)
        if hasattr(command, "commands"):
            yield from _commands(command, (*words, name))


def _objects(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Every schema of an object with named properties inside `schema`."""
    if isinstance(schema, list):
        for item in schema:
            yield from _objects(item)
    elif isinstance(schema, dict):
        if "properties" in schema:
            yield schema
        for item in schema.values():
            yield from _objects(item)


def test_every_command_with_json_has_a_schema_and_every_schema_a_command_or_a_log() -> None:
    group = typer.main.get_command(app)
    names = {"-".join(words) for words in _commands(group)}
    assert names >= {"train", "eval", "sweep-show", "export-metrics"}
    assert set(DOCUMENTS) == names | {"train-dry-run"} | set(LOGS)


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_schema_is_closed_and_describes_every_field(name: str, cli: Cli) -> None:
    text = cli("schema", name).out
    schema = json.loads(text)
    assert text.isascii()
    jsonschema.Draft202012Validator.check_schema(schema)
    assert schema["$schema"] == "https://json-schema.org/draft/2020-12/schema"
    assert schema["title"] == DOCUMENTS[name].origin and schema["description"]
    objects = list(_objects(schema))
    assert objects
    for each in objects:
        assert each["additionalProperties"] is False
        assert set(each["properties"]) - set(each["required"]) <= MAY_BE_ABSENT
        for key, field in each["properties"].items():
            assert len(field["description"]) > 5, key


def test_without_a_name_the_documents_are_listed_a_line_of_80_columns_each(cli: Cli) -> None:
    lines = cli("schema").out.splitlines()
    assert [line.split()[0] for line in lines] == list(DOCUMENTS) and max(map(len, lines)) <= 80


def test_an_unknown_name_is_one_line_with_all_names(cli: Cli) -> None:
    result = cli("schema", "sweep")
    assert (result.code, result.out, result.err.count("\n")) == (2, "", 1)
    assert all(name in result.err for name in DOCUMENTS) and "did you mean sweep-show?" in result.err


@pytest.fixture
def documents(cli: Cli, trained: str) -> dict[str, str]:
    """The text that every command prints about a small run, and a line of each of its logs."""
    Path("points.csv").write_text("x,y\n1,2\n3,4\n")
    open_sweep(plan_sweep("smoke", [], read_space(grid=["inner.steps=1,2"]), out=Path("swept"), storage=None))
    commands = {
        "train": ["train", "-c", "smoke", *SMALL],
        "train-dry-run": ["train", "-c", "smoke", "--dry-run"],
        "eval": ["eval", trained, "--tasks", "10", "--steps", "1"],
        "adapt": ["adapt", trained, "--data", "points.csv"],
        "compare": ["compare", trained, trained, "--tasks", "10", "--out", "compare.svg"],
        "diff": ["diff", trained, "best-5shot", "--tasks", "10", "--shots", "5"],
        "runs": ["runs"],
        "clean": ["clean", trained, "--keep-last", "1"],
        "sweep-show": ["sweep", "show", "swept"],
        "export-metrics": ["export", "metrics", trained],
        "check": ["check", "-c", "smoke", "-s", "model.hidden=[4]"],
        "info": ["info"],
    }
    printed = {name: cli(*arguments, "--json").out for name, arguments in commands.items()}
    return printed | {name: (Path(trained) / name).read_text().splitlines()[0] for name in LOGS}


def test_what_a_command_prints_is_valid_and_has_the_schema_version_first(cli: Cli, documents: dict[str, str]) -> None:
    assert set(documents) == set(DOCUMENTS)
    for name, text in documents.items():
        document = _valid(cli, name, text)
        assert name in LOGS or next(iter(document)) == "schema_version", name
        _valid_log(cli, "outputs/smoke", name) if name in LOGS else None
    config = json.loads(documents["train-dry-run"])["config"]
    jsonschema.Draft202012Validator(json.loads(config_schema_text())).validate(config)
    assert json.loads(documents["eval"])["results"][0]["baselines"]["least_squares_any_frequency"] is None
    trials = json.loads(documents["sweep-show"])["trials"]
    assert {trial["state"] for trial in trials} == {"waiting"} and trials[0]["error"] is None


def _pruned(value: Any, *, has_free_names: bool = False) -> Any:
    """A document with the last item of each list alone, and of each object whose names are free."""
    if isinstance(value, list):
        return [_pruned(item) for item in value[-1:]]
    if not isinstance(value, dict):
        return value
    items = [*value.items()][-1:] if has_free_names else value.items()
    return {key: _pruned(item, has_free_names=key in FREE_NAMES) for key, item in items}


def _paths(value: Any, path: tuple[Any, ...] = ()) -> Iterator[tuple[Any, ...]]:
    """The path of each named field of a pruned document."""
    if isinstance(value, list) and value:
        yield from _paths(value[-1], (*path, -1))
    for key, item in value.items() if isinstance(value, dict) else ():
        if not (path and path[-1] in FREE_NAMES):
            yield (*path, key)
        if key not in FREE_VALUES:
            yield from _paths(item, (*path, key))


def test_a_missing_field_another_field_and_another_type_are_refused(documents: dict[str, str]) -> None:
    for name, text in documents.items():
        validator, document = jsonschema.Draft202012Validator(json_schema(name)), _pruned(json.loads(text))
        assert validator.is_valid(document)
        paths = list(_paths(document))
        assert len(paths) >= 2
        for path in paths:
            removed, extended, retyped = (deepcopy(document) for _ in range(3))
            for changed in (removed, extended, retyped):
                parent = changed
                for key in path[:-1]:
                    parent = parent[key]
                if changed is removed:
                    del parent[path[-1]]
                elif changed is extended:
                    parent["another"] = 1
                else:
                    parent[path[-1]] = [{"another": 1}]
            may_be_absent = path[-1] in MAY_BE_ABSENT and name != "sweep-show"
            assert validator.is_valid(removed) == may_be_absent, (name, path)
            assert not validator.is_valid(extended), (name, path)
            is_free = path[-1] in ("left", "right") and len(path) > 1
            assert is_free or not validator.is_valid(retyped), (name, path)


def test_several_seeds_of_a_mixture_have_kinds_ensemble_bands_and_rows_of_each_seed(cli: Cli) -> None:
    learned = ["-s", "inner.alpha.learned=true", "-s", "outer.clip_task_norm=1", "-s", "model.hidden=[4]"]
    train = cli("train", "-c", "mmaml-3modes", *SMALL, *learned, "-s", "run.seeds=2", "--out", "outputs/mix", "--json")
    assert _valid(cli, "train", train.out)["seeds"] == [0, 1]
    losses = [line for line in _valid_log(cli, "outputs/mix", "metrics.jsonl") if "loss" in line]
    assert all(len(line["skipped_tasks"]) == len(line["loss"]) == 2 and line["alpha"] for line in losses)
    evaluation = _valid(cli, "eval", cli("eval", "outputs/mix", "--tasks", "30", "--steps", "1", "--json").out)
    (result,) = evaluation["results"]
    assert len(result["by_kind"]) == 3 and len(result["ensemble"]) == 2 and len(result["by_seed"]) == 2
    assert "ci95_seeds" in result["steps"][0]["grid"]["mse"]
    Path("points.csv").write_text("task,x,y,split\na,1,2,support\na,2,3,support\na,3,3,query\n")
    adapted = cli("adapt", "outputs/mix", "--data", "points.csv", "--task", "task", "--rescale", "--json").out
    document = _valid(cli, "adapt", adapted)
    assert len(document["predictions"][0]["band"]) == 2 and document["query_mse"]
    rows = _valid(cli, "export-metrics", cli("export", "metrics", "outputs/mix", "--json").out)["metrics"]
    assert {row["seed"] for row in rows} == {0, 1}


def test_a_seed_that_diverges_is_null_in_the_log_and_named_in_the_document(
    cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second of three starts where its losses overflow."""

    def overflowing(*arguments: Any) -> TrainState:
        state = init_state(*arguments)
        for leaf in state.meta_params.params.values():
            leaf[1] = 1e30
        return state

    monkeypatch.setattr("maml_cli.training.session.init_state", overflowing)
    result = cli("train", "-c", "smoke", *SMALL, "-s", "run.seeds=3", "--out", "outputs/one", "--json")
    assert _valid(cli, "train", result.out)["diverged"] == {"1": 1}
    lines = _valid_log(cli, "outputs/one", "metrics.jsonl")
    assert any(line["loss"][1] is None for line in lines if "loss" in line)
    assert any(line["eval"]["grid_mse"][1] is None for line in lines if "eval" in line)
    evaluated = cli("eval", "outputs/one", "--tasks", "10", "--json").out
    assert [row["seed"] for row in _valid(cli, "eval", evaluated)["results"][0]["by_seed"]] == [0, 2]
    rows = _valid(cli, "export-metrics", cli("export", "metrics", "outputs/one", "--json").out)["metrics"]
    assert {row["seed"] for row in rows if row["value"] is None} == {1}


def test_diverged_damaged_and_overflowing_runs_are_valid(cli: Cli, trained: str) -> None:
    settings = ["-s", "inner.alpha.init=1e20", "-s", "inner.steps=3"]
    assert cli("train", "-c", "smoke", *SMALL, *settings, "--out", "outputs/wild", "--json").code == 5
    assert _valid_log(cli, "outputs/wild", "timing.jsonl")[-1]["diverged"]
    Path("outputs/broken").mkdir()
    Path("outputs/broken/last.json").write_text("{}")
    rows = _valid(cli, "runs", cli("runs", "--json").out)["runs"]
    assert {row["state"] for row in rows} == {"done", "diverged", "damaged"}
    wild = ["--tasks", "10", "--steps", "40", "--set", "inner.alpha.scale=1000"]
    assert _nulls(_valid(cli, "eval", cli("eval", trained, *wild, "--json").out)["results"][0]["steps"][40]) > 10
    Path("far.csv").write_text("x,y\n1e30,1\n2e30,2\n")
    adapted = _valid(cli, "adapt", cli("adapt", trained, "--data", "far.csv", "--json").out)
    assert adapted["support_mse"][-1] is None
    assert _valid(cli, "runs", cli("runs", "--where", "step>99", "--json").out)["runs"] == []


def test_trials_without_values_and_files_in_place_of_predictions_are_valid(cli: Cli, trained: str) -> None:
    space = read_space(trials=2, ranges=["outer.lr=0.001..0.1"])
    open_sweep(plan_sweep("smoke", [], space, out=Path("drawn"), storage=None))
    trials = _valid(cli, "sweep-show", cli("sweep", "show", "drawn", "--json").out)["trials"]
    assert [trial["values"] for trial in trials] == [{}, {}]
    Path("points.csv").write_text("x,y\n1,2\n3,4\n")
    adapted = cli("adapt", trained, "--data", "points.csv", "--out", "fit.csv", "--json").out
    assert _valid(cli, "adapt", adapted)["predictions"] is None


def test_a_document_cannot_be_built_with_other_fields_or_types() -> None:
    row: dict[str, Any] = {
        "name": "a",
        "path": "a",
        "preset": None,
        "changes": {},
        "state": "done",
        "step": 1,
        "num_steps": None,
    }
    row |= {"error": 1.0, "engine": None, "age_seconds": 0.0, "problem": None}
    assert trainings.RunRow.model_validate(row)
    for wrong in (row | {"another": 1}, row | {"step": "1"}, row | {"state": "lost"}, {"name": "a"}):
        with pytest.raises(ValidationError):
            trainings.RunRow.model_validate(wrong)
    with pytest.raises(ValidationError):
        machine.InfoDocument.model_validate({"maml": "1"})


def test_a_path_that_is_not_utf8_keeps_its_bytes_and_infinity_is_null() -> None:
    row = trainings.RunRow(
        name="\udcff", path="\udcff", preset=None, changes={"tasks.file": "\udcff"}, state="done", step=1,
        num_steps=1, error=float("inf"), engine=None, age_seconds=0.0, problem=None,
    )  # fmt: skip
    text = to_json(trainings.RunsDocument(runs=[row]))
    assert text.count('"\\udcff"') == 3 and '"error": null' in text
    jsonschema.Draft202012Validator(json_schema("runs")).validate(json.loads(text))


def test_the_example_of_the_page_validates_the_evaluation_of_a_run(cli: Cli, trained: str) -> None:
    (code,) = re.findall(
        r"```python\n(import json, pathlib, jsonschema.*?)```", (ROOT / "maml_cli/README.md").read_text(), flags=re.S
    )
    assert len([line for line in code.splitlines() if line]) == 4
    Path("eval.schema.json").write_text(cli("schema", "eval").out)
    Path("outputs/quickstart").mkdir()
    cli("eval", trained, "--tasks", "10", "--out", "outputs/quickstart/eval.json")
    exec(code, {})
    Path("outputs/quickstart/eval.json").write_text('{"schema_version": 1}')
    with pytest.raises(jsonschema.ValidationError):
        exec(code, {})
