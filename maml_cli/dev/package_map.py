"""The map of the packages, from the first sentence of each docstring."""

import ast
import re
from pathlib import Path

from maml_cli.dev.markdown import table

PACKAGE = Path(__file__).resolve().parents[1]
READING_ORDER = (
    "core",
    "tasks",
    "config",
    "experiment",
    "engines",
    "runs",
    "training",
    "evaluation",
    "checks",
    "reporting",
    "cli",
    "runtime",
    "documents",
    "reading",
    "errors",
    "lazy",
    "dev",
)


def package_map() -> str:
    """A table of all modules, each package before its modules, in the order in which to read them."""
    rows = []
    for top in sorted(_members(PACKAGE), key=_reading_order):
        rows += _package_rows(top) if top.is_dir() else [[f"**`{top.name}`**", f"**{first_sentence(top)}**"]]
    return table(["", ""], rows)


def _package_rows(package: Path) -> list[list[str]]:
    """The row of a package, then those of its modules, then those of the packages inside it."""
    name = package.relative_to(PACKAGE).as_posix()
    members = sorted(_members(package))
    rows = [[f"**`{name}/`**", f"**{first_sentence(package / '__init__.py')}**"]]
    rows += [[f"`{name}/{path.name}`", first_sentence(path)] for path in members if not path.is_dir()]
    return rows + [row for path in members if path.is_dir() for row in _package_rows(path)]


def _members(package: Path) -> list[Path]:
    """The modules and packages directly inside `package`, without `__init__.py` and `__main__.py`."""
    paths = [path for path in package.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    return [path for path in paths if not path.stem.startswith("__")]


def _reading_order(path: Path) -> tuple[int, str]:
    known = path.stem in READING_ORDER
    return READING_ORDER.index(path.stem) if known else len(READING_ORDER), path.name


def first_sentence(file: Path) -> str:
    """The first sentence of the docstring of the module in `file`, on one line."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    return re.split(r"(?<=[.?!])(?<!al\.)\s", paragraph)[0].replace("|", "\\|")
