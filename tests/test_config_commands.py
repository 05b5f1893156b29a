"""The command `maml config check` on hostile input, and limits that are checked before anything is allocated."""

from pathlib import Path

from tests.conftest import Cli, shell


def test_sizes_of_twenty_digits_are_refused_before_anything_is_allocated(cli: Cli) -> None:
    for key in "tasks.num_support", "tasks.num_query", "outer.tasks_per_step", "outer.steps", "run.eval_tasks":
        result = cli("train", "-c", "smoke", "-s", f"{key}=100000000000000000000")
        assert result.code == 2 and f"{key} must be at most" in result.err


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
