"""The command `maml config check` on hostile input, and limits that are checked before anything is allocated."""

import time
from pathlib import Path

import pytest

from maml_cli.config import limits
from tests.conftest import Cli, shell


def test_sizes_of_twenty_digits_are_refused_before_anything_is_allocated(cli: Cli) -> None:
    for key in "tasks.num_query", "outer.tasks_per_step", "outer.steps", "run.eval_tasks":
        result = cli("train", "-c", "smoke", "-s", f"{key}=100000000000000000000")
        assert result.code == 2 and f"{key} must be at most" in result.err
    result = cli("train", "-c", "smoke", "-s", "tasks.num_support=100000000000000000000")
    assert result.code == 2 and "tasks.num_support must be a whole number from 1 to 100,000" in result.err


def test_an_alpha_beyond_the_range_of_float32_is_refused_in_float32_only(cli: Cli) -> None:
    result = cli("train", "-c", "smoke", "-s", "inner.alpha.init=1e308")
    assert result.code == 2 and "inner.alpha.init must be at most 3e38" in result.err
    assert cli("config", "check", "smoke", "-s", "inner.alpha.init=1e308", "-s", "run.dtype=float64").code == 0


def test_a_config_is_read_from_a_pipe(cli: Cli, tmp_path: Path) -> None:
    result = shell("echo 'inner: {step: 1}' | maml config check /dev/stdin", tmp_path)
    assert result.returncode == 2 and "inner.step: unknown key" in result.stderr
    assert shell("echo 'inner: {steps: 1}' | maml config check /dev/stdin", tmp_path).returncode == 0


def test_deep_long_and_unprintable_configs_give_a_bounded_printable_message(cli: Cli) -> None:
    Path("deep.yaml").write_text("model:\n  hidden: " + "[" * 1200 + "]" * 1200)
    assert cli("config", "check", "deep.yaml").err == (  # the document, model, and 15 lists from column 11 on
        "deep.yaml:2:25: more than 16 levels of sections and lists inside one another, the limit of a config\n"
    )
    Path("many.yaml").write_text("".join(f"key{i}: 1\n" for i in range(300)))
    assert cli("config", "check", "many.yaml").err.endswith("... and 200 more\n")
    Path("escape.yaml").write_text('"\\e[31mX": 1\n')
    assert "\x1b" not in cli("config", "check", "escape.yaml").err
    assert "at most 16 items, has 17" in cli("config", "check", "smoke", "-s", f"model.hidden={[1] * 17}").err


N = limits.MAX_CHARACTERS
LARGE = {
    "nested lists": "[" * N,
    "nested mappings": "{" * N,
    "nested keys": "? " * (N // 2),
    "nested by indentation": "".join(f"{' ' * depth}a:\n" for depth in range(900)),
    "a long word": "a" * (N + 1),
    "comments": "#" * (N + 1),
    "escapes": '"' + "\\n" * (N // 2) + '"',
    "numbers": f"run: {{seeds: [{'1,' * (N // 2 - 20)}]}}",
    "unknown keys": "".join(f"key{index}: 1\n" for index in range(4900)),
    "too many keys": "".join(f"key{index}: 1\n" for index in range(6000)),
    "duplicate keys": "a: 1\n" * 4900,
    "documents": "---\n" * (N // 4),
    "aliases": "a: &a 1\n" + "".join(f"b{index}: *a\n" for index in range(2000)),
    "a long key": f"inner:\n  ? {'k' * 100_000}\n  : 1\n",
    "a long tag": "!" + "t" * 100_000 + " 1",
}


@pytest.mark.parametrize("text", LARGE.values(), ids=LARGE)
def test_a_large_config_is_refused_within_seconds_in_a_short_message(text: str, cli: Cli) -> None:
    """Each takes a fraction of a second; without the limits, some take minutes."""
    Path("large.yaml").write_text(text)
    started = time.process_time()
    result = cli("config", "check", "large.yaml")
    assert time.process_time() - started < 5
    assert result.code == 2 and len(result.err) < 40_000 and len(result.err.splitlines()) <= 101


def test_overrides_are_limited_in_number_length_and_depth(cli: Cli) -> None:
    for overrides, problem in (
        (["a.b=1"] * 1001, "--set: 1,001 overrides; a config takes at most 1,000"),
        ([f"run.seeds={'1' * N}"], "--set: 1 overrides; a config takes at most 1,000, of 524,288 characters"),
        ([f"{'a.' * 1000}b=1"], "more than 16 levels of sections and lists"),
    ):
        result = cli("config", "check", "smoke", *(word for text in overrides for word in ("-s", text)))
        assert result.code == 2 and problem in result.err and len(result.err) < 500


def test_the_longest_list_of_seeds_is_within_the_limits_and_its_annotated_yaml_loads_again(cli: Cli) -> None:
    seeds = list(range(2**62, 2**62 + 1024))
    Path("seeds.yaml").write_text("run:\n  seeds:\n" + "".join(f"    - {seed}  # a seed\n" for seed in seeds))
    shown = cli("config", "show", "seeds.yaml")
    assert shown.code == 0 and len(shown.out) < 30_000
    Path("again.yaml").write_text(shown.out)
    assert cli("config", "check", "again.yaml").code == 0


def test_escaped_surrogate_pairs_are_characters_and_halves_of_them_are_refused(cli: Cli) -> None:
    """JSON escapes a character beyond U+FFFF as a pair of surrogates."""
    Path("emoji.yaml").write_text('{"\\ud83d\\ude00": 1}')
    assert cli("config", "check", "emoji.yaml").err.startswith("emoji.yaml:1:2: \U0001f600: unknown key; known here: ")
    Path("half.yaml").write_text('{"run": {"device": "\\ud83d"}}')
    assert "half.yaml:1:20: bytes that are not UTF-8, or half of a surr" in cli("config", "check", "half.yaml").err


@pytest.mark.parametrize(
    "text", ["a\nb=1", "\udcff=1", "inner.loss=\udcff", "inner.\x1b[31m=1", "\u202einner=1", "x\u2028y=1"]
)
def test_an_override_that_does_not_print_is_quoted_with_escapes_on_one_line(text: str, cli: Cli) -> None:
    result = cli("config", "check", "smoke", "-s", text)
    (line,) = result.err.splitlines()
    assert result.code == 2 and line.startswith("--set ") and line.isprintable()


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("tasks.frequency=[0,1e20]", "tasks.frequency must be at most 1,000,000 in magnitude, got [0, 1e+20]"),
        ("tasks.frequency=1e308", "tasks.frequency must be at most 1,000,000 in magnitude, got 1e+308"),
        ("tasks.x=[-1e308,1e308]", "tasks.x must be at most 1,000,000 in magnitude, got [-1e+308, 1e+308]"),
        ("tasks.offset=1e308", "tasks.offset must be at most 1e30 in magnitude, got 1e+308"),
        ("tasks.noise=1e31", "tasks.noise must be at most 1e30, got 1e+31"),
        # 0.01 radians / 2^-24 / 5, the largest input by default
        ("tasks.frequency=33555", "tasks.frequency must be at most 33,554.4 in magnitude: rounded to float32, inputs"),
        # the spacing of float32 at 1 is 2^-23: 1,000 of them are 0.00012
        ("tasks.x=[1,1.0001]", "tasks.x must be wide enough for 1,000 different inputs in float32"),
    ],
)
def test_tasks_beyond_what_the_arithmetic_represents_are_refused(override: str, message: str, cli: Cli) -> None:
    result = cli("config", "check", "smoke", "-s", override)
    assert result.code == 2 and result.err.startswith(f"--set {override}: {message}")


@pytest.mark.parametrize("override", ["tasks.frequency=33554", "tasks.x=[1,1.00013]", "tasks.offset=-1e30"])
def test_tasks_at_the_bounds_of_the_arithmetic_are_accepted(override: str, cli: Cli) -> None:
    assert cli("config", "check", "smoke", "-s", override).code == 0


@pytest.mark.parametrize(
    ("overrides", "key"),
    [
        (["tasks.family=harmonic", "tasks.parameters={frequency2: 33555}"], "tasks.parameters"),
        (["tasks.family=square", "tasks.parameters={frequency: {normal: [33000, 200]}}"], "tasks.parameters"),
        (["tasks.family=mixture", "tasks.mixture=[{family: line}, {family: sawtooth, parameters: {frequency: -4e4}}]"],
         "tasks.mixture"),
    ],
)  # fmt: skip
def test_frequencies_of_every_family_are_limited_alike(overrides: list[str], key: str, cli: Cli) -> None:
    result = cli("config", "check", "smoke", *(arg for text in overrides for arg in ("-s", text)))
    assert result.code == 2 and f"{key} must have frequencies of at most 33,554.4" in " ".join(result.err.split())


def test_a_family_without_frequency_takes_inputs_of_any_range(cli: Cli) -> None:
    overrides = ["tasks.family=line", "tasks.x=[-1e6,1e6]"]
    assert cli("config", "check", "smoke", *(arg for text in overrides for arg in ("-s", text))).code == 0
    assert cli("config", "check", "smoke", "-s", "tasks.x=[-1e6,1e6]").code == 2  # a sinusoid
