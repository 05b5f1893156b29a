"""Completion of the shell: runs, presets, config keys and their values, in bash and zsh, without PyTorch."""

import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from maml_cli.cli.completion import (
    complete_condition,
    complete_document,
    complete_override,
    complete_own_run,
    complete_preset,
    complete_resumed,
    complete_run,
)
from maml_cli.config.fields import FIELDS, section_model
from maml_cli.runs.published import published_names
from tests.conftest import Cli

CODE = (
    "import sys; from maml_cli.cli.app import main\n"
    "heavy = {'torch', 'matplotlib', 'numpy', 'scipy'}\n"
    "try: main()\n"
    "except SystemExit: pass\n"
    "finally: print(sorted(heavy & sys.modules.keys()), file=sys.stderr)"
)


def _complete(line: str, shell: str = "bash") -> list[str]:
    """The completions of the last word of a line, by a process that imports nothing heavy."""
    last = len(line.replace("\n", " ").split(" ")) - 1
    words = {"COMP_WORDS": line, "COMP_CWORD": str(last), "_TYPER_COMPLETE_ARGS": line}
    environment = os.environ | {"_MAML_COMPLETE": f"complete_{shell}"} | words
    done = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=False)
    assert done.stderr.strip() == "[]", done.stderr
    return done.stdout.split()


@pytest.mark.parametrize("command", ["eval ", "diff x ", "check --checkpoint "])
def test_runs_in_outputs_the_newest_first_and_published_names(trained: str, command: str) -> None:
    older = Path("outputs/older")
    older.mkdir()
    (older / "last.json").touch()
    os.utime(older / "last.json", (1, 1))
    assert _complete(f"maml {command}") == [trained, str(older), "latest", *published_names()]


def test_a_word_is_completed_to_runs_directories_and_checkpoints(trained: str) -> None:
    Path("outputs/other").mkdir()
    Path(".hidden").mkdir()
    assert complete_run("out") == [trained, "outputs/"]
    assert complete_run("outputs/") == [trained, "outputs/other/"]
    files = [f"{trained}/checkpoints/step-{step:08d}.pt" for step in (0, 4, 8, 12)]
    assert complete_run(f"{trained}/checkpoints/s") == files
    assert complete_run("finn") == [name for name in published_names() if name.startswith("finn")]
    assert complete_run("nowhere/x") == complete_run("\0") == []


def test_resume_completes_auto_and_no_published_run(trained: str) -> None:
    assert complete_resumed("") == [trained, "latest", "auto"]
    assert complete_own_run("") == [trained, "latest"]
    assert _complete("maml train --resume a") == ["auto"]


def test_config_completes_presets_and_yaml_files(cli: Cli) -> None:
    Path("finn-mine.yaml").touch()
    Path("finn-notes.txt").touch()
    assert complete_preset("finn") == [
        "finn-10shot",
        "finn-10shot-clip",
        "finn-10shot-noise",
        "finn-5shot",
        "finn-mine.yaml",
    ]
    assert complete_preset("") == complete_preset("")[:500] and "smoke" in complete_preset("")


def test_schema_completes_the_names_of_documents(cli: Cli) -> None:
    assert complete_document("ex") == _complete("maml schema ex") == ["export-metrics"]
    assert complete_document("train") == ["train", "train-dry-run"] and complete_document("x") == []


def test_set_completes_keys_and_the_words_that_a_key_takes(cli: Cli) -> None:
    keys = [f"{key}=" for key, field in FIELDS.items() if section_model(field) is None]
    assert complete_override("") == keys
    assert complete_override("inner.loss=") == [
        "inner.loss=mse",
        "inner.loss=half_mse",
        "inner.loss=l1",
        "inner.loss=huber",
    ]
    assert complete_override("outer.lr=0") == complete_override("nothing=") == []
    assert complete_condition("st") == ["state=", "step="]
    assert _complete("maml train -s outer.l") == _complete("maml eval --set outer.l") == ["outer.lr="]


@pytest.mark.parametrize(
    ("words", "completions"),
    [
        ("--set|run.engine|=", ["auto", "native", "compiled", "eager", "reference"]),
        ("--set|run.engine|=|nat", ["native"]),
        ("-s|outer.lr|=|0.1|-s|inner.loss|=|h", ["half_mse", "huber"]),
        ("--set|=|inner.loss|=|h", ["half_mse", "huber"]),
        ("--config|=|smo", ["smoke"]),
        ("--set|run.engine=nat", ["run.engine=native"]),  # with a COMP_WORDBREAKS without =
    ],
)
def test_bash_gets_the_text_after_the_equals_sign_at_which_it_splits_words(words: str, completions: list[str]) -> None:
    """COMP_WORDS as bash makes it of `maml train --set run.engine=nat` and others: a word a line."""
    assert sorted(_complete("\n".join(["maml", "train", *words.split("|")]))) == sorted(completions)


def test_the_only_key_has_its_values_as_shells_add_a_space_after_an_only_completion() -> None:
    assert complete_override("inner.los") == [
        "inner.loss=mse",
        "inner.loss=half_mse",
        "inner.loss=l1",
        "inner.loss=huber",
    ]
    assert complete_override("outer.l") == ["outer.lr="]


def test_zsh_gets_the_same_words(trained: str) -> None:
    assert '"outer.lr="' in "".join(_complete("maml train --set outer.l", shell="zsh"))


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("plot x --kind ta", "tail tasks"),
        ("plot x --format p", "png pdf"),
        ("eval x --device c", "cpu cuda"),
        ("runs --sort ", "age name error step"),
        ("export params x --format n", "npz"),
    ],
)
def test_options_that_take_words_complete_them_and_no_files(line: str, words: str, cli: Cli) -> None:
    assert _complete(f"maml {line}") == words.split()


def test_every_option_that_takes_one_of_several_words_completes_them() -> None:
    from tests.test_option_values import WITH_PARSER

    of_words = {
        name: row for name, row, _ in WITH_PARSER if "one_of" in repr(row.type_descriptor.parameter_info.parser)
    }
    assert len(of_words) >= 5
    without = [name for name, row in of_words.items() if row.type_descriptor.parameter_info.autocompletion is None]
    assert without == []


def test_zsh_shows_apostrophes_in_descriptions(cli: Cli) -> None:
    """The words that zsh evaluates, as its own parser reads them."""
    environment = os.environ | {"_MAML_COMPLETE": "complete_zsh", "_TYPER_COMPLETE_ARGS": "maml exp"}
    printed = subprocess.run([sys.executable, "-c", CODE], env=environment, capture_output=True, text=True, check=True)
    assert shlex.split(printed.stdout)[1] == '*: :(("export":"Write a run\'s metrics or parameters for..."))'
