"""Fuzzed configs and `--set`, by hypothesis: from the schema, and from bytes."""

from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import yaml
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from maml_cli.config import from_dict, load_config, to_dict
from maml_cli.config.fields import FIELDS
from maml_cli.dev.soak.processes import maml
from maml_cli.dev.soak.row import SoakRow
from maml_cli.dev.soak.tally import Tally, scaled
from maml_cli.errors import ConfigError, FileError

IN_PROCESS = 20_000
PROCESSES = 300

VALUES: st.SearchStrategy[Any] = st.recursive(
    st.sampled_from([None, True, False, "", "null", "0x10", "1e3", "1_0", 10**400, -1, 0, 1, 2**63, "a" * 5000, "\x00"])
    | st.integers()
    | st.floats()
    | st.text(max_size=12),
    lambda values: st.lists(values, max_size=4) | st.dictionaries(st.text(max_size=6), values, max_size=3),
    max_leaves=6,
)
KEYS = st.sampled_from(
    sorted([*FIELDS, "x", "inner.x", "inner..steps", "INNER.steps", "__class__", "inner.alpha.init.y"])
)
FLAT = st.dictionaries(KEYS, VALUES, max_size=8)
TEXTS = st.binary(max_size=300) | st.text("{}[]:,-&*!|>'\"%@#\n\t 0a.\\", max_size=80).map(str.encode)
OVERRIDES = st.lists(
    st.builds("{}={}".format, KEYS, st.text(max_size=20) | VALUES.map(str)) | st.text(max_size=30), max_size=4
)


def attack(scratch: Path, *, scale: float) -> SoakRow:
    """Read fuzzed files and overrides in this process, and some by `maml config check` and `maml train --dry-run`.

    Each is refused with one line for each problem, or read as a config whose plain values are read as the same config.
    """
    tally = Tally("20,000 fuzzed configs and --set in process, 300 as processes")
    file = scratch / "fuzzed.yaml"
    _for_each(scaled(IN_PROCESS, scale), partial(check_in_process, tally, file))
    _for_each(scaled(PROCESSES, scale), partial(_check_process, tally, file))
    return tally.row()


def check_in_process(tally: Tally, file: Path, data: bytes, overrides: Sequence[str]) -> None:
    """Read `data` as a config with `overrides`; mutates the tally."""
    tally.tries += 1
    file.write_bytes(data)
    line = f"{data[:200]!r} {list(overrides)!r}"[:500]
    try:
        config = load_config(str(file), overrides).config
        if from_dict(to_dict(config), label="x") != config:
            tally.fail("changed", f"{line}: its plain values are another config")
    except (ConfigError, FileError) as error:
        if not all(problem.isprintable() for problem in str(error).split("\n")):
            tally.fail("tracebacks", f"{line}: a message that is not printable")
    except Exception as error:
        tally.fail("tracebacks", f"{line}: {type(error).__name__}: {error}"[:500])


def _check_process(tally: Tally, file: Path, data: bytes, overrides: Sequence[str]) -> None:
    tally.tries += 1
    file.write_bytes(data)
    arguments = ["config", "check", str(file)] if tally.tries % 2 else ["train", "-c", str(file), "--dry-run"]
    arguments += [f"--set={text}" for text in overrides]
    if any("\0" in argument or not _is_encodable(argument) for argument in arguments):
        return  # no shell can pass it
    tally.check_end(maml(arguments, file.parent), {0, 2, 3}, f"{data[:200]!r} {arguments!r}"[:500])


def _is_encodable(text: str) -> bool:
    return not any("\ud800" <= letter <= "\udfff" for letter in text)


def _for_each(count: int, check: Callable[[bytes, Sequence[str]], None]) -> None:
    """Call `check` with `count` files and lists of overrides, the same in every run."""

    @seed(0)
    @settings(
        max_examples=count,
        database=None,
        deadline=None,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
    )
    @given(st.one_of(FLAT.map(_as_yaml), TEXTS), st.just([]) | OVERRIDES)
    def examples(data: bytes, overrides: list[str]) -> None:
        check(data, overrides)

    examples()


def _as_yaml(flat: dict[str, Any]) -> bytes:
    """The YAML of a nested config with the values of `flat`."""
    nested: dict[str, Any] = {}
    for key, value in sorted(flat.items()):
        *sections, name = key.split(".")
        section = nested
        for section_name in sections:
            inside = section.setdefault(section_name, {})
            section = inside if isinstance(inside, dict) else nested
        section[name] = value
    return yaml.safe_dump(nested, allow_unicode=True).encode(errors="surrogatepass")
