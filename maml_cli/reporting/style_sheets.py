"""Style sheets: ours by name, and the user's own .mplstyle files, of which settings of looks alone are taken."""

import ast
import re
from pathlib import Path
from typing import Any

from maml_cli.errors import ConfigError, shorten
from maml_cli.reading import read_file
from maml_cli.reporting.figure_style import SHEETS, Sheet
from maml_cli.reporting.format import list_in_words
from maml_cli.reporting.matplotlib_import import FontProperties, matplotlib

MAX_FILE = 100_000
"""Largest size of a style sheet, in bytes."""
MAX_LENGTH = 40
"""Characters of a value in a message."""
LOOKS = (
    "axes.",
    "figure.edgecolor",
    "figure.facecolor",
    "figure.figsize",
    "figure.titlesize",
    "figure.titleweight",
    "font.",
    "grid.",
    "image.cmap",
    "legend.",
    "lines.",
    "savefig.edgecolor",
    "savefig.facecolor",
    "text.color",
    "xtick.",
    "ytick.",
)
"""Settings that a style sheet may have: none of them loads code, starts a program (as text.usetex would) or names a
file."""
CYCLE_NODES = (ast.Expression, ast.Call, ast.Name, ast.Load, ast.keyword, ast.List, ast.Tuple, ast.Constant)
"""Syntax of axes.prop_cycle: cycler('color', ['#0072B2', ...]), and sums of several."""


def read_sheet(name: str) -> Sheet:
    """The style sheet of a name in SHEETS, or in the .mplstyle file at the path `name`.

    Raises FileError for a file that is not a regular one or cannot be read, ConfigError for an invalid one.
    """
    if name in SHEETS:
        return SHEETS[name]
    file = Path(name)
    if file.suffix != ".mplstyle":
        raise ConfigError(f"--style {name}: must be {list_in_words([*SHEETS])}, or a file that ends in .mplstyle")
    try:
        text = read_file(file, limit=MAX_FILE).decode("utf-8-sig")
    except UnicodeDecodeError:
        raise ConfigError(f"{file}: not a text file in UTF-8") from None
    settings: dict[str, Any] = {}
    with matplotlib.rc_context():
        matplotlib.rcdefaults()
        for number, line in enumerate(text.splitlines(), start=1):
            key, separator, value = (word.strip() for word in _without_comment(line).partition(":"))
            if key or separator:
                settings[key] = _checked(key, value.strip('"'), where=f"{file}:{number}")
        _check_font(file)
    width, height = settings.pop("figure.figsize", (None, None))
    return Sheet(settings, width, height)


def _without_comment(line: str) -> str:
    """The line up to the first # that is not in quotes."""
    return re.match(r"""(?:[^#"']|"[^"]*"|'[^']*'|["'])*""", line)[0].strip()  # type: ignore[index]


def _checked(key: str, value: str, *, where: str) -> Any:
    """The value of a setting, which is in force from here on; raises ConfigError for an invalid one."""
    known = [name for name in matplotlib.rcParams if name.startswith(LOOKS)]
    if key not in known:
        advice = "no setting of matplotlib" if key not in matplotlib.rcParams else "not taken from a style sheet"
        names = list_in_words([f"{name}*" if name.endswith(".") else name for name in LOOKS])
        raise ConfigError(f"{where}: {shorten(key, MAX_LENGTH)}: {advice}; remove the line, or give {names}")
    if key == "axes.prop_cycle" and not _is_plain_cycle(value):
        raise ConfigError(f"{where}: {key}: must be such as cycler('color', ['#0072B2', '#D55E00'])")
    try:
        matplotlib.rcParams[key] = value
    except ValueError as error:
        problem = shorten(" ".join(str(error).split()), 2 * MAX_LENGTH)
        raise ConfigError(f"{where}: {key}: {shorten(value, MAX_LENGTH) or 'no value'}: {problem}") from None
    parsed = matplotlib.rcParams[key]
    if key == "figure.figsize" and not all(1 <= length <= 100 for length in parsed):
        raise ConfigError(f"{where}: {key}: must be a width and a height from 1 to 100 inches, such as 3.4, 2.6")
    if key == "font.size" and not 1 <= parsed <= 100:
        raise ConfigError(f"{where}: {key}: must be from 1 to 100 points")
    return parsed


def _is_plain_cycle(text: str) -> bool:
    """Whether `text` is made of cycler(...), sums, lists and literals alone; matplotlib evaluates it as Python."""
    try:
        nodes = [*ast.walk(ast.parse(text, mode="eval"))]
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        return False
    names = {node.id for node in nodes if isinstance(node, ast.Name)}
    plain = (*CYCLE_NODES, ast.BinOp, ast.Add)
    return names == {"cycler"} and all(isinstance(node, plain) for node in nodes) and "color" in text


def _check_font(file: Path) -> None:
    """Raises ConfigError if none of the fonts of the settings in force is on this machine."""
    try:
        matplotlib.font_manager.findfont(FontProperties(), fallback_to_default=False)
    except ValueError:
        family = ", ".join(matplotlib.rcParams["font.family"])
        raise ConfigError(
            f"{file}: font.family: {shorten(family, MAX_LENGTH)}: no such font on this machine; give another or none"
        ) from None
