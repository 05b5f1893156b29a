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
    "reading",
    "errors",
    "lazy",
    "dev",
)


def package_map() -> str:
    """A table of all modules, each package before its modules, in the order in which to read them."""
    tops = [path for path in PACKAGE.iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()]
    tops = sorted((path for path in tops if not path.stem.startswith("__")), key=_reading_order)
    rows = []
    for top in tops:
        if top.is_dir():
            rows.append([f"**`{top.name}/`**", f"**{first_sentence(top / '__init__.py')}**"])
            modules = [path for path in sorted(top.glob("*.py")) if path.name != "__init__.py"]
            rows += [[f"`{top.name}/{path.name}`", first_sentence(path)] for path in modules]
        else:
            rows.append([f"**`{top.name}`**", f"**{first_sentence(top)}**"])
    return table(["", ""], rows)


def _reading_order(path: Path) -> tuple[int, str]:
    known = path.stem in READING_ORDER
    return READING_ORDER.index(path.stem) if known else len(READING_ORDER), path.name


def first_sentence(file: Path) -> str:
    """The first sentence of the docstring of the module in `file`, on one line."""
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8"))) or ""
    paragraph = " ".join(docstring.partition("\n\n")[0].split())
    return re.split(r"(?<=[.?!])(?<!al\.)\s", paragraph)[0].replace("|", "\\|")
