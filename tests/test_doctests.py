"""The examples in docstrings give what they show."""

import doctest
import importlib
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "maml_cli"
MODULES = [
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts)
    for file in sorted(PACKAGE.rglob("*.py"))
    if ">>> " in file.read_text()
]


def test_modules_of_the_core_have_examples() -> None:
    assert {"maml_cli.core.update_rules", "maml_cli.core.inner_loop"} <= set(MODULES)


@pytest.mark.parametrize("name", MODULES)
def test_examples_give_the_values_that_are_shown(name: str) -> None:
    failed, attempted = doctest.testmod(importlib.import_module(name))
    assert failed == 0 and attempted > 0
