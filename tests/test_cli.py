"""The command line as people and scripts meet it: results on stdout, messages on stderr, exit codes."""

import contextlib
import itertools
import json
import os
import re
import signal
import struct
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.config import presets
from maml_cli.core import meta_gradients, update_rules
from maml_cli.runs import metrics, open_checkpoint, read_lines
from maml_cli.training import session
from tests.conftest import NUM_CHECKS, TINY_RUN, Cli, shell

ROOT = Path(__file__).parent.parent
EVALUATION = {"shots", "num_tasks", "seed", "trained_steps", "noisy_targets", "steps", "by_seed", "baselines"}
STATISTIC = {"mean", "ci95", "median"}
TAIL = {
    "percentile_90",
    "percentile_99",
    "worst",
    "worst_10_percent_mean",
    "num_diverged",
    "mean_without_diverged",
    "worst_1_percent_share",
    "tasks_for_10_percent_interval",
}


def _json(text: str) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(text, parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert next(iter(document)) == "schema_version" and document["schema_version"] == 1
    return document


def test_every_command_has_a_help_page_of_at_most_80_columns(cli: Cli) -> None:
    assert cli("--version").out.startswith("maml 0.")
    commands: list[list[str]] = [
        [],
        ["train"],
        ["eval"],
        ["plot"],
        ["compare"],
        ["check"],
        ["presets"],
        ["presets", "copy"],
        ["config"],
        ["config", "check"],
        ["config", "show"],
        ["info"],
    ]
    for command in commands:
        result = cli(*command, "--help")
        assert result.code == 0 and "Usage: maml" in result.out
        assert max(len(line) for line in result.out.splitlines()) <= 80
        assert "<=" not in result.out and "range>" not in result.out
    for name in "train", "eval", "plot", "compare", "check":
        assert "Examples" in cli(name, "--help").out
    assert "Usage: maml" in cli().out


@pytest.mark.parametrize("command", ["train", "eval", "plot", "compare", "check"])
def test_paragraphs_of_help_fill_their_lines_and_examples_have_one_each(command: str, cli: Cli) -> None:
    """A line of a paragraph is broken only where its next word does not fit into 80 columns."""
    lines = [line.rstrip() for line in cli(command, "--help").out.splitlines()]
    text = lines[: next(index for index, line in enumerate(lines) if line.startswith("╭"))]
    for line, following in itertools.pairwise(text):
        if line.startswith(" ") and following.strip() and not following.startswith("  "):
            assert len(f"{line} {following.split()[0]}") > 79, line
    start = text.index(" Examples")
    assert all(line.startswith("   maml ") for line in text[start + 1 :] if line)


def test_train_prints_the_run_on_stdout_and_the_rest_on_stderr(cli: Cli) -> None:
    result = cli("train", "-c", "smoke", *TINY_RUN)
    assert result.code == 0 and result.out == "outputs/smoke\n"
    for words in (
        "second order",
        "alpha fixed at 0.01",
        "device   cpu (as asked)",
        "step 12/12: loss",
        "steps/s",
        "tasks/s",
    ):
        assert words in result.err
    assert result.err.endswith("next: maml eval --checkpoint outputs/smoke\n")
    again = cli("train", "-c", "smoke", *TINY_RUN, "--quiet")
    assert again.out == "outputs/smoke-2\n" and again.err == ""


def test_train_states_the_order_of_the_meta_gradient(cli: Cli) -> None:
    assert "order    first order (FOMAML)" in cli("train", "-c", "fomaml-10shot", *TINY_RUN).err
    annealed = cli("train", "-c", "smoke", *TINY_RUN, "-s", "inner.first_order_until=6").err
    assert "order    first order for 6 outer steps, then second" in annealed


def test_the_document_of_train_names_run_checkpoint_and_rates(cli: Cli) -> None:
    result = cli("train", "-c", "smoke", *TINY_RUN, "--json", "--quiet")
    document = _json(result.out)
    assert document["run"] == "outputs/smoke" and document["step"] == 12
    assert (
        document["checkpoint"] == "outputs/smoke/checkpoints/step-00000012.pt" and Path(document["checkpoint"]).exists()
    )
    assert document["device"] == "cpu" and document["engine"] == "eager" and document["interrupted"] is False
    assert document["outer_steps_per_second"] == pytest.approx(12 / document["seconds"])
    assert document["tasks_per_second"] == pytest.approx(25 * document["outer_steps_per_second"])


def test_train_without_a_config_takes_the_quickstart_and_a_dry_run_writes_nothing(cli: Cli, tmp_path: Path) -> None:
    result = cli("train", "--dry-run")
    assert result.code == 0 and result.out.startswith("outputs/quickstart: nothing written (--dry-run)\n")
    assert "20,000 outer steps" in result.out and not list(tmp_path.iterdir())


def test_out_takes_a_new_directory_only(cli: Cli) -> None:
    assert cli("train", "-c", "smoke", *TINY_RUN, "-q", "--out", "a/b").out == "a/b\n"
    result = cli("train", "-c", "smoke", *TINY_RUN, "-q", "--out", "a/b")
    assert result.code == 3 and result.err.startswith("a/b: not empty; give a new directory")


def test_resume_continues_from_a_run_or_one_of_its_checkpoints(cli: Cli, trained: str) -> None:
    last = Path(trained) / "checkpoints" / "step-00000012.pt"
    expected = last.read_bytes()
    last.unlink()
    result = cli("train", "--resume", f"{trained}/checkpoints/step-00000008.pt")
    assert result.code == 0 and "resumed at outer step 8" in result.err and last.read_bytes() == expected
    assert "nothing left to do" in cli("train", "--resume", trained).err
    result = cli("train", "--resume", trained, "-s", "outer.steps=3")
    assert result.code == 2 and "outputs/smoke has taken 12 outer steps; give more" in result.err
    result = cli("train", "--resume", trained, "-c", "smoke")
    assert result.code == 2 and "leave out --config, --out and --init" in result.err
    Path("lone.pt").write_bytes(expected)
    assert "lone.pt: not in a run directory" in cli("train", "--resume", "lone.pt").err


def test_resume_auto_finds_the_unfinished_run_of_the_same_config(cli: Cli, trained: str) -> None:
    options = ["-c", "smoke", *TINY_RUN, "-s", "run.checkpoint_every=4", "-q", "--resume", "auto"]
    assert cli("train", *options).out == "outputs/smoke-2\n"  # the one there is finished
    unfinished = Path("outputs/smoke-2")
    (unfinished / "checkpoints" / "step-00000012.pt").unlink()
    assert cli("train", *options).out == "outputs/smoke-2\n"
    assert (unfinished / "checkpoints" / "step-00000012.pt").exists()
    (unfinished / "checkpoints" / "step-00000012.pt").unlink()
    assert cli("train", *options, "-s", "run.seed=5").out == "outputs/smoke-3\n"  # another config


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_the_resumed_run_ends_with_the_same_bytes(
    number: int, code: int, cli: Cli, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The signal arrives when the first line of losses, of outer step 10, is written."""
    options = ["-c", "smoke", "-s", "outer.steps=40", "-s", "run.log_every=10", "-s", "run.eval_tasks=4"]
    write_losses = metrics.write_losses

    def write_and_signal(*arguments: Any) -> None:
        write_losses(*arguments)
        signal.raise_signal(number)

    with monkeypatch.context() as patch:
        patch.setattr(metrics, "write_losses", write_and_signal)
        stopped = cli("train", *options)
    assert stopped.code == code and stopped.out == "outputs/smoke\n"
    name = signal.Signals(number).name
    assert stopped.err.endswith(
        f"stopped by {name}; checkpoint saved. Resume with: maml train --resume outputs/smoke\n"
    )
    assert json.loads(Path("outputs/smoke/last.json").read_text())["step"] == 10
    assert cli("train", "--resume", "outputs/smoke", "-q").code == 0
    assert cli("train", *options, "--out", "uninterrupted", "-q").code == 0
    for file in "metrics.jsonl", "checkpoints/step-00000040.pt", "last.json", "config.yaml":
        assert Path("outputs/smoke", file).read_bytes() == Path("uninterrupted", file).read_bytes(), file


def test_a_process_saves_at_sigterm_and_exits_with_143(tmp_path: Path) -> None:
    """A million outer steps: on no machine is the training over before the signal arrives."""
    changes = ["outer.steps=1000000", "run.engine=eager", "run.eval_tasks=4"]
    options = [word for change in changes for word in ("-s", change)]
    command = [sys.executable, "-m", "maml_cli", "train", "-c", "smoke", *options]
    run, environment = tmp_path / "outputs" / "smoke", os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        command, cwd=tmp_path, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as process:
        deadline = time.monotonic() + 120
        while time.monotonic() < deadline and not any("loss" in line for line in read_lines(run / "metrics.jsonl")):
            time.sleep(0.01)
        process.send_signal(signal.SIGTERM)
        out, err = process.communicate(timeout=120)
    assert process.returncode == 143 and out == "outputs/smoke\n"
    assert err.endswith("stopped by SIGTERM; checkpoint saved. Resume with: maml train --resume outputs/smoke\n")
    assert 0 < open_checkpoint(run).step < 1_000_000


def test_diverging_is_exit_5_with_advice(cli: Cli) -> None:
    result = cli("train", "-c", "smoke", *TINY_RUN, "-q", "-s", "inner.alpha.init=1e6", "-s", "inner.steps=5")
    assert result.code == 5
    first, advice, checkpoint = result.err.splitlines()
    assert first.startswith("diverged at outer step 1: ") and first.endswith("is not finite")
    assert advice == (
        "try a lower alpha (--set inner.alpha.init=0.01), fewer inner steps (--set inner.steps=2) "
        "or a smaller initialisation (--set model.init_gain=0.1)"
    )
    assert checkpoint == "the last good checkpoint is outputs/smoke/checkpoints/step-00000000.pt"
    assert cli("eval", "--checkpoint", "outputs/smoke", "--tasks", "3").code == 0


def test_the_table_of_eval_has_a_row_for_each_inner_step_and_baseline_in_80_columns(cli: Cli, trained: str) -> None:
    result = cli("eval", "--checkpoint", trained, "--tasks", "20", "--steps", "3")
    assert result.code == 0 and result.err.startswith("not written to a file: eval.json is for the default protocol")
    lines = result.out.splitlines()
    assert f"{trained} at outer step 12 of 12" in lines
    assert "K = 10, 20 test tasks (seed 0); mean squared error, mean ± 95 % interval" in lines
    assert [line.split()[0] for line in lines[4:8]] == ["0", "1*", "2", "3"]
    assert [line.split("  ")[0] for line in lines[8:11]] == ["predict zero", "best unadapted", "least squares"]
    assert max(map(len, lines)) <= 80


def test_the_document_of_eval_has_a_result_for_each_k_and_repeats_exactly(cli: Cli, trained: str) -> None:
    result = cli(
        "eval", "--checkpoint", trained, "--tasks", "20", "--steps", "2", "--shots", "5,10", "--seed", "7", "--json"
    )
    document = _json(result.out)
    assert document["checkpoint"] == f"{trained}/checkpoints/step-00000012.pt" and document["step"] == 12
    assert [evaluation["shots"] for evaluation in document["results"]] == [5, 10]
    for evaluation in document["results"]:
        assert evaluation.keys() == EVALUATION
        assert (evaluation["num_tasks"], evaluation["seed"], evaluation["trained_steps"]) == (20, 7, 1)
        assert evaluation["baselines"].keys() == {
            "zero",
            "best_unadapted",
            "random_init",
            "least_squares",
            "least_squares_any_frequency",
        }
        assert evaluation["baselines"]["least_squares_any_frequency"] is None
        assert (
            [step["step"] for step in evaluation["steps"]]
            == [step["step"] for step in evaluation["baselines"]["random_init"]]
            == [0, 1, 2]
        )
        points = [*evaluation["steps"], *evaluation["baselines"]["random_init"]]
        points += [evaluation["baselines"][name] for name in ("zero", "best_unadapted", "least_squares")]
        for point in points:
            for name in "grid", "query", "support":
                assert point[name].keys() == {"mse", "mae"}
                assert point[name]["mse"].keys() == point[name]["mae"].keys() == STATISTIC | TAIL
    assert (
        cli(
            "eval", "--checkpoint", trained, "--tasks", "20", "--steps", "2", "--shots", "5,10", "--seed", "7", "--json"
        ).out
        == result.out
    )


def test_errors_that_overflow_are_null_in_json_and_inf_in_the_table(cli: Cli, trained: str) -> None:
    arguments = ["eval", "--checkpoint", trained, "--tasks", "4", "--steps", "40", "--set", "tasks.amplitude=1e20"]
    last = _json(cli(*arguments, "--json").out)["results"][0]["steps"][40]
    assert last["grid"]["mse"] == dict.fromkeys(STATISTIC | TAIL) | {"num_diverged": 4}
    row = next(line for line in cli(*arguments).out.splitlines() if line.startswith("40"))
    assert row.split()[1:4] == ["inf", "inf", "inf"]


def test_eval_takes_other_tasks_and_refuses_other_keys(cli: Cli, trained: str) -> None:
    arguments = ["eval", "--checkpoint", trained, "--tasks", "50", "--steps", "0", "--json"]
    inside, outside = (_json(cli(*arguments, *more).out) for more in ([], ["--set", "tasks.amplitude=[3,3]"]))
    assert outside["overrides"] == ["tasks.amplitude=[3,3]"]
    zero = [document["results"][0]["baselines"]["zero"]["grid"]["mse"]["mean"] for document in (inside, outside)]
    assert zero[1] == pytest.approx(4.5, rel=0.2) and zero[0] != zero[1]
    for text in "inner.steps=3", "model.hidden=[3]":
        result = cli("eval", "--checkpoint", trained, "--set", text)
        assert result.code == 2 and "takes other tasks, such as" in result.err
    assert "did you mean tasks.phase?" in cli("eval", "--checkpoint", trained, "--set", "tasks.phas=1").err


def test_eval_always_uses_the_learned_alpha(cli: Cli) -> None:
    """A run whose alpha has been changed in its checkpoint alone adapts otherwise."""
    from maml_cli.runs import checkpoint

    run = Path(cli("train", "-c", "lab-learned-alpha", *TINY_RUN, "-q").out.strip())
    file = run / "checkpoints" / "step-00000012.pt"
    contents = checkpoint.decode(file.read_bytes())
    assert contents["meta_params"]["rule_params"]["alpha"].item() != pytest.approx(0.1, abs=1e-6)
    contents["meta_params"]["rule_params"]["alpha"] = torch.zeros_like(contents["meta_params"]["rule_params"]["alpha"])
    Path("still.pt").write_bytes(checkpoint.encode(contents))
    steps = _json(cli("eval", "--checkpoint", "still.pt", "--tasks", "5", "--steps", "2", "--json").out)["results"][0][
        "steps"
    ]
    assert steps[0]["grid"] == steps[2]["grid"]
    steps = _json(cli("eval", "--checkpoint", run, "--tasks", "5", "--steps", "2", "--json").out)["results"][0]["steps"]
    assert steps[0]["grid"] != steps[2]["grid"]


def test_a_run_trained_on_another_device_is_evaluated_on_this_one(cli: Cli, trained: str) -> None:
    from maml_cli.runs import checkpoint

    contents = checkpoint.decode((Path(trained) / "checkpoints" / "step-00000012.pt").read_bytes())
    contents["config"]["run"]["device"] = "cuda"
    Path("from-cuda.pt").write_bytes(checkpoint.encode(contents))
    assert cli("eval", "--checkpoint", "from-cuda.pt", "--tasks", "5", "--steps", "1").code == 0


def test_resume_auto_ignores_a_damaged_run_of_another_config(cli: Cli, trained: str) -> None:
    file = Path(trained) / "checkpoints" / "step-00000012.pt"
    file.write_bytes(file.read_bytes()[:-100])
    options = ["-c", "smoke", *TINY_RUN, "-q", "--resume", "auto"]
    assert cli("train", *options, "-s", "run.seed=5").out == "outputs/smoke-2\n"
    result = cli("train", *options, "-s", "run.checkpoint_every=4")
    assert result.code == 0 and f"{file}: damaged" in result.err and "; skipped\n" in result.err


def test_a_preset_takes_precedence_over_a_directory_of_its_name(cli: Cli) -> None:
    Path("smoke").mkdir()
    assert cli("config", "check", "smoke").code == 0
    Path("other").mkdir()
    assert cli("config", "check", "other").code == 3


def test_characters_outside_the_encoding_of_the_terminal_are_question_marks(cli: Cli, trained: str) -> None:
    command = [sys.executable, "-m", "maml_cli", "eval", "--checkpoint", trained, "--tasks", "5", "--steps", "1"]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    assert "mean ? 95 % interval" in done.stdout


def test_a_damaged_checkpoint_is_exit_4_and_names_the_newest_good_one(cli: Cli, trained: str) -> None:
    file = Path(trained) / "checkpoints" / "step-00000012.pt"
    file.write_bytes(file.read_bytes()[:-100])
    for command in ["eval", "--checkpoint", trained], ["plot", "--checkpoint", trained], ["train", "--resume", trained]:
        result = cli(*command)
        assert result.code == 4 and result.out == "" and result.err.count("\n") == 1
        assert result.err.endswith(f"the newest good checkpoint is {trained}/checkpoints/step-00000008.pt\n")


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["train", "-c", "nothing.yaml"], 3, "nothing.yaml: no such file"),
        (["train", "-c", "nothing"], 2, "nothing: no such preset"),
        (["train", "-s", "inner.step=1"], 2, "--set inner.step=1: inner.step: unknown key; did you mean inner.steps?"),
        (["train", "--device", "tpu"], 2, "--device tpu: must be auto, cpu, cuda or mps"),
        (["train", "--foo"], 2, "--foo: no such option; did you mean --out?"),
        (["train", "--zzz"], 2, "--zzz: no such option; see maml train --help"),
        (["train", "extra"], 2, "extra: not expected here; see maml train --help"),
        (["train", "--quiet=3"], 2, "--quiet: does not take a value; see maml train --help"),
        (["train", "--resume", "nowhere"], 3, "nowhere: no such run or checkpoint"),
        (["eval", "--checkpoint", "nowhere"], 3, "nowhere: no such run or checkpoint"),
        (["eval"], 3, "latest: there is no run in outputs; train one with maml train, or give a run"),
        (["plot"], 3, "latest: there is no run in outputs; train one with maml train, or give a run"),
        (["eval", "x", "--checkpoint", "y"], 2, "RUN x, --checkpoint y: give one of the two"),
        (["plot", "x", "--checkpoint", "y"], 2, "RUN x, --checkpoint y: give one of the two"),
        (["check", "x", "--checkpoint", "y"], 2, "RUN x, --checkpoint y: give one of the two"),
        (["check", "x", "--config", "y"], 2, "RUN x, --config y: give one of the two"),
        (["check", "nowhere"], 3, "nowhere: no such run or checkpoint"),
        (["eval", "--checkpoint"], 2, "--checkpoint: requires an argument; see maml eval --help"),
        (["eval", "x", "--shots", "5;10"], 2, "--shots 5;10: must be whole numbers from 1 to 100,000, such as 5,10,20"),
        (["eval", "x", "--shots", "0"], 2, "--shots 0: must be whole numbers from 1 to 100,000, such as 5,10,20"),
        (["eval", "x", "--tasks", "1"], 2, "--tasks 1: must be a whole number from 2 to 1,000,000"),
        (["eval", "x", "--tasks", "many"], 2, "--tasks many: must be a whole number from 2 to 1,000,000"),
        (["eval", "x", "--seed", "-1"], 2, "--seed -1: must be a whole number from 0 below 2^63"),
        (["eval", "x", "--seed", str(2**63)], 2, f"--seed {2**63}: must be a whole number from 0 below 2^63"),
        (["plot", "x", "--kind", "pie"], 2, "--kind pie: must be fit, curve, steps, alpha, path, tail, landscape, "),
        (["plot", "x", "--format", "gif"], 2, "--format gif: must be png, svg or pdf"),
        (["compare"], 2, "RUN RUN...: missing; see maml compare --help"),
        (["compare", "x"], 2, "RUN x: give two runs or more to compare"),
        (["compare", "x", "y", "--out", "c.gif"], 2, "--out c.gif: must end in .png, .svg or .pdf"),
        (["presets", "show"], 2, "NAME: missing; see maml presets show --help"),
        (["presets", "frobnicate"], 2, "frobnicate: no such command; see maml presets --help"),
        (["presets", "show", "nothing"], 2, "nothing: no such preset"),
        (["config", "check", "nothing.yaml"], 3, "nothing.yaml: no such file"),
        (["frobnicate"], 2, "frobnicate: no such command; see maml --help"),
        (["trian"], 2, "trian: no such command; did you mean train?"),
        (["train", "mine.yaml"], 2, "mine.yaml: not expected here; see maml train --help"),
        (["eval", "x", "--device", "gpu"], 2, "--device gpu: must be auto, cpu, cuda or mps; did you mean cuda?"),
        (["eval", "x", "--device", "cuda:0"], 2, "--device cuda:0: must be auto, cpu, cuda or mps; did you mean cuda?"),
        (["train", "--device", "cuda"], 2, "device cuda: not available here; there are auto, cpu"),
    ],
)
def test_mistakes_are_a_message_and_an_exit_code(arguments: list[str], code: int, words: str, cli: Cli) -> None:
    result = cli(*arguments)
    assert result.code == code and result.out == ""
    assert words in result.err and result.err.count("\n") == 1


def test_a_run_is_an_argument_or_an_option(cli: Cli, trained: str) -> None:
    for command in ["eval", "--tasks", "5", "--json"], ["plot", "--kind", "fit"], ["check", "--json"]:
        results = [cli(*command, *run) for run in ([trained], ["--checkpoint", trained])]
        assert results[0].code == 0 and results[0].out == results[1].out


def test_check_of_a_run_checks_the_learner_of_its_config(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    from maml_cli import checks

    run = cli("train", "-c", "smoke", *TINY_RUN, "-q", "-s", "inner.steps=3", "-s", "model.hidden=[7]").out.strip()
    configs: list[Any] = []

    def record(config: Any, **progress: Any) -> list[Any]:
        configs.append(config)
        return []

    monkeypatch.setattr(checks, "run_checks", record)
    for path in run, f"{run}/checkpoints/step-00000012.pt":
        assert cli("check", path, "-s", "inner.loss=l1").code == 0
    assert [(config.inner.steps, config.model.hidden, config.inner.loss) for config in configs] == [(3, [7], "l1")] * 2


def test_a_file_that_cannot_be_written_is_named_with_its_option(cli: Cli, trained: str) -> None:
    out = f"{trained}/config.yaml/x"  # below a file
    for command in ["plot", trained, "--kind", "fit"], ["eval", trained, "--tasks", "5"]:
        result = cli(*command, "--out", out)
        reason = f"cannot be written: {trained}/config.yaml is not a directory\n"
        assert result.code == 3 and result.err == f"--out {out}: {reason}"
        assert (result.out != "") == (command[0] == "eval")
    result = cli("compare", trained, trained, "--tasks", "5", "--out", f"{out}.png")
    assert result.code == 3 and result.err == f"--out {out}.png: {reason}" and result.out


def test_out_is_no_symbolic_link_to_itself(cli: Cli, trained: str) -> None:
    Path("circle").symlink_to("circle")
    commands = {
        "circle": ["eval", trained],
        "circle/c.png": ["compare", trained, trained],
        "circle/": ["plot", trained],
    }
    for out, command in commands.items():
        result = cli(*command, "--tasks", "5", "--out", out)
        assert result.code == 3 and result.err.startswith("--out circle") and result.err.count("\n") == 1
        assert Path("circle").is_symlink()


def test_out_replaces_neither_a_directory_nor_a_pipe(cli: Cli, trained: str) -> None:
    os.mkfifo("pipe")
    for out, kind in {"pipe": "a FIFO", "/": "a directory"}.items():
        result = cli("eval", trained, "--tasks", "5", "--out", out)
        assert result.code == 3 and result.err == f"--out {out}: cannot be written: {kind}, not a regular file\n"
    assert Path("pipe").is_fifo()


def test_a_link_that_out_names_is_followed(cli: Cli, trained: str) -> None:
    Path("link").symlink_to("target")
    result = cli("eval", trained, "--tasks", "5", "--json", "--out", "link")
    assert result.code == 0 and Path("target").read_text() == result.out and Path("link").is_symlink()


def test_closed_and_full_streams_change_no_exit_code_and_blame_no_file(trained: str, tmp_path: Path) -> None:
    done = shell(f"maml eval {trained} --tasks 5 >&-", tmp_path)
    assert done.returncode == 0 and "Traceback" not in done.stderr
    if Path("/dev/full").exists():
        assert shell("maml frobnicate 2>/dev/full", tmp_path).returncode == 2
        done = shell(f"maml eval {trained} --tasks 5 --out x.json >/dev/full", tmp_path)
        assert done.returncode == 3 and done.stderr == "No space left on device\n"


def test_the_table_of_several_seeds_fits_on_80_columns(cli: Cli) -> None:
    run = cli("train", "-c", "smoke", *TINY_RUN, "-q", "-s", "run.seeds=2").out.strip()
    rows = [line for line in cli("eval", run, "--tasks", "5").out.splitlines() if "±" in line]
    assert "±seeds" in rows[1] and max(map(len, rows)) <= 80


def test_eval_writes_its_document_to_out(cli: Cli, trained: str) -> None:
    result = cli("eval", trained, "--tasks", "5", "--out", "new/result.json", "--json")
    assert result.code == 0 and result.err == "written to new/result.json\n"
    assert Path("new/result.json").read_text() == result.out and not Path(trained, "eval.json").exists()


def test_a_directory_that_cannot_be_written_is_exit_3(cli: Cli) -> None:
    Path("outputs").touch()
    result = cli("train", "-c", "smoke", *TINY_RUN, "-q")
    assert result.code == 3 and result.err == (
        f"outputs/smoke: cannot be created: {Path('outputs').resolve()} is not a directory; "
        "give another directory with --out\n"
    )


def test_running_out_of_memory_is_a_message(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*args: object, **kwargs: object) -> None:
        raise RuntimeError("[enforce fail at alloc_cpu.cpp:127] DefaultCPUAllocator: can't allocate memory: you tried")

    monkeypatch.setattr(session, "train", full)
    result = cli("train", "-c", "smoke", "-q")
    assert result.code == 2 and result.err.startswith("out of memory; try fewer tasks")


def test_check_passes_and_reports(cli: Cli) -> None:
    result = cli("check")
    assert result.code == 0 and f"{NUM_CHECKS} of {NUM_CHECKS} checks passed" in result.out
    assert max(map(len, result.out.splitlines())) <= 80
    document = _json(cli("check", "-c", "lab-learned-alpha", "-s", "inner.alpha.per=layer", "--json").out)
    assert document["passed"] is True and len(document["cases"]) == NUM_CHECKS
    assert all(case.keys() == {"name", "expected", "obtained", "tolerance", "passed"} for case in document["cases"])


@pytest.mark.parametrize(
    "changes",
    [
        ["inner.optimizer=adam", "inner.steps=3"],
        ["model.num_context=2", "inner.adapt=context", "inner.curvature=kronecker", "inner.optimizer=adam"],
        ["outer.multi_step_loss_until=5", "inner.steps=2", "inner.first_order_until=3"],
        ["inner.order=implicit", "inner.proximal=1", "inner.adapt=head", "inner.steps=3"],
        ["outer.meta_gradient=reptile", "inner.optimizer=adam"],
        ["model.hidden=[]", "tasks.num_support=1", "inner.loss=huber"],
    ],
)
def test_check_passes_for_every_kind_of_learner(cli: Cli, changes: list[str]) -> None:
    result = cli("check", "-s", "model.hidden=[6,5]", *(word for change in changes for word in ("-s", change)))
    assert result.code == 0 and "WRONG" not in result.out, result.out[-600:]
    assert ("first outer step" in result.out) == ("outer.multi_step_loss_until=5" in changes)


def test_check_notices_wrong_weights_of_the_multi_step_loss(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meta_gradients, "annealed_step_weights", lambda steps, until: lambda step: [0.0, 0.1, 0.9])
    changes = ["model.hidden=[4]", "outer.multi_step_loss_until=5", "inner.steps=2"]
    assert cli("check", *(word for change in changes for word in ("-s", change))).code == 1


def test_check_fails_if_alphas_start_at_another_value(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(update_rules, "init_alphas", lambda *a, **k: {"alpha": torch.full((1, 1, 1, 1), 0.3).double()})
    result = cli("check")
    assert result.code == 1 and "WRONG" in result.out
    result = cli("check", "--json")
    assert result.code == 1 and _json(result.out)["passed"] is False


def test_presets_are_listed_shown_and_copied_and_configs_checked_and_shown(cli: Cli) -> None:
    assert cli("presets").out == cli("presets", "list").out
    assert [line.split()[0] for line in cli("presets").out.splitlines()][:2] == [
        "alpaca-10shot",
        "alpha-per-step-10shot",
    ]
    assert cli("presets", "show", "smoke").out == (ROOT / "configs" / "smoke.yaml").read_text()
    assert cli("presets", "copy", "smoke", "mine.yaml").out == "mine.yaml\n"
    assert cli("presets", "copy", "smoke", "mine.yaml").code == 3
    assert cli("config", "check", "mine.yaml").out == "mine.yaml: valid\n"
    shown = cli("config", "show", "mine.yaml", "--set", "inner.steps=5").out
    assert "  steps: 5 " in shown and "# --set" in shown and "# mine.yaml:4" in shown
    Path("mine.yaml").write_text("inner: {step: 1}\n")
    result = cli("config", "check", "mine.yaml")
    assert (result.code, result.err) == (2, "mine.yaml:1:9: inner.step: unknown key; did you mean inner.steps?\n")


def test_info_has_versions_and_devices_in_text_and_json(cli: Cli) -> None:
    document = _json(cli("info", "--json").out)
    assert document["torch"] == torch.__version__ and "cpu" in document["devices"] and document["cpu capability"]
    assert cli("info").out.count("\n") == len(document) - 1


def test_info_names_the_compiler(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = tmp_path / "own-c++"
    own.write_text("#!/bin/sh\necho own compiler 1.2\necho more\n")
    own.chmod(0o755)
    monkeypatch.setenv("CXX", str(own))
    assert _json(cli("info", "--json").out)["compiler"] == f"{own}, own compiler 1.2"
    own.write_bytes(b"\x7fELF")
    assert _json(cli("info", "--json").out)["compiler"] == f"{own}, which does not run"
    monkeypatch.delenv("CXX")
    monkeypatch.setenv("PATH", str(tmp_path))
    assert _json(cli("info", "--json").out)["compiler"] == "none"


def _on_terminal(*arguments: str, folder: Path) -> str:
    """What `maml` shows on a terminal of 80 columns."""
    fcntl, pty, termios = (pytest.importorskip(name) for name in ("fcntl", "pty", "termios"))
    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    command, environment = [sys.executable, "-m", "maml_cli", *arguments], os.environ | {"PYTHONPATH": str(ROOT)}
    with subprocess.Popen(command, cwd=folder, env=environment, stdout=theirs, stderr=theirs) as process:
        os.close(theirs)
        shown = b""
        with contextlib.suppress(OSError):  # the other end is closed
            while part := os.read(ours, 65536):
                shown += part
        assert process.wait(timeout=60) == 0
    os.close(ours)
    return shown.decode()


def test_a_terminal_gets_a_bar_with_loss_rate_and_time_left(tmp_path: Path) -> None:
    shown = _on_terminal("train", "-c", "smoke", "-s", "outer.steps=600", "-s", "run.eval_tasks=4", folder=tmp_path)
    bars = [line for line in shown.replace("\n", "\r").split("\r") if "%|" in line]
    assert len(bars) >= 2 and all(len(bar) <= 80 for bar in bars)
    assert re.search(r"100%\|.+\| 600/600 .*loss [\d.]+, [\d,]+ steps/s, [\d,]+ tasks/s, done in [\d.]+ s", bars[-1])
    assert all(len(bar.rstrip()) <= 78 for bar in bars[1:])  # the ^C of a terminal at Ctrl-C fits behind it


def test_on_a_terminal_the_summaries_of_presets_are_wrapped_below_themselves(cli: Cli, tmp_path: Path) -> None:
    listed = cli("presets").out
    wrapped = _on_terminal("presets", folder=tmp_path).splitlines()
    first = listed.splitlines()[0]
    indent = first.index(first.split(maxsplit=1)[1])
    assert max(map(len, listed.splitlines())) > 80 >= max(map(len, wrapped))
    assert all(line[:indent].strip() in presets.names() or not line[:indent].strip() for line in wrapped)
    assert " ".join(listed.split()) == " ".join(" ".join(wrapped).split())


def test_completion_knows_the_presets() -> None:
    environment = os.environ | {
        "_MAML_COMPLETE": "complete_bash",
        "COMP_WORDS": "maml train --config fi",
        "COMP_CWORD": "3",
    }
    code = "from maml_cli.cli.app import main; main()"
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.split() == ["finn-10shot", "finn-10shot-clip", "finn-10shot-noise", "finn-5shot"]


def test_a_program_that_calls_main_keeps_its_handler_of_sigpipe(cli: Cli, trained: str) -> None:
    """Otherwise a pipe that closes would end it after `maml train`."""
    before = signal.getsignal(signal.SIGPIPE)
    assert cli("train", "--resume", trained, "-q").code == 0
    assert signal.getsignal(signal.SIGPIPE) == before == signal.SIG_IGN
