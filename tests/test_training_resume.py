"""Resuming: from which checkpoint, with which config, and what is reported about missing files."""

import json
import os
from pathlib import Path

import pytest

from maml_cli.runs import directory, open_checkpoint, read_lines
from maml_cli.training import session
from tests.conftest import TINY_RUN, Cli


def test_resuming_from_an_older_checkpoint_makes_it_the_newest_at_once(
    cli: Cli, trained: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As if killed right after: nothing claims the later steps whose log is gone."""
    expected = (Path(trained) / "metrics.jsonl").read_bytes()

    def killed(*args: object, **kwargs: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(session, "train", killed)
        assert cli("train", "--resume", f"{trained}/checkpoints/step-00000004.pt", "-q").code == 130
    assert open_checkpoint(Path(trained)).step == 4
    assert cli("train", "--resume", trained, "-q").code == 0
    assert (Path(trained) / "metrics.jsonl").read_bytes() == expected
    assert open_checkpoint(Path(trained)).step == 12


def test_resuming_a_renamed_checkpoint_leaves_step_0_alone(cli: Cli, trained: str) -> None:
    saved = Path(trained) / "checkpoints"
    before = (saved / "step-00000000.pt").read_bytes()
    (saved / "step-00000008.pt").rename(saved / "mine.pt")
    assert cli("train", "--resume", saved / "mine.pt", "-q").code == 0
    assert (saved / "step-00000000.pt").read_bytes() == before
    steps = [record["step"] for record in read_lines(Path(trained) / "metrics.jsonl") if "eval" in record]
    assert steps == [0, 4, 8, 12]


def test_a_run_in_training_is_not_resumed_by_another(cli: Cli, trained: str) -> None:
    with directory.training_lock(Path(trained)):
        result = cli("train", "--resume", trained, "-q")
    assert result.code == 3 and result.err == f"{trained}: another process is training this run\n"


def test_resume_auto_takes_the_newest_of_several(cli: Cli) -> None:
    options = ["-c", "smoke", *TINY_RUN, "-q", "-s", "run.checkpoint_every=4"]
    for number in range(2):
        run = Path(cli("train", *options).out.strip())
        (run / "checkpoints" / "step-00000012.pt").unlink()
        os.utime(run / "last.json", (1000 - number, 1000 - number))
    assert cli("train", *options, "--resume", "auto").out == "outputs/smoke\n"


def test_a_run_without_a_checkpoint_is_resumed_from_its_start(cli: Cli, trained: str) -> None:
    expected = {name: (Path(trained) / name).read_bytes() for name in ("metrics.jsonl", "last.json")}
    for file in [*(Path(trained) / "checkpoints").iterdir(), Path(trained) / "last.json"]:
        file.unlink()
    result = cli("train", "--resume", trained)
    assert result.code == 0 and "resumed at outer step 0" in result.err
    assert {name: (Path(trained) / name).read_bytes() for name in expected} == expected


def test_a_run_resumed_on_a_device_of_its_own_keeps_config_and_bytes(cli: Cli) -> None:
    options = ["-c", "quickstart", *TINY_RUN, "-q", "-s", "run.checkpoint_every=4"]
    uninterrupted, run = (Path(cli("train", *options).out.strip()) for _ in range(2))
    for step, later in ((4, (8, 12)), (8, (12,))):
        for number in later:
            (run / "checkpoints" / f"step-{number:08d}.pt").unlink(missing_ok=True)
        result = cli("train", "--resume", run / "checkpoints" / f"step-{step:08d}.pt", "--device", "cpu", "-q")
        assert result.code == 0, result.err
    assert cli("train", "--resume", run, "-q").code == 0
    for name in "last.json", "config.yaml", "metrics.jsonl", "checkpoints/step-00000012.pt":
        assert (run / name).read_bytes() == (uninterrupted / name).read_bytes()


def test_a_run_whose_config_was_edited_is_not_resumed(cli: Cli, trained: str) -> None:
    written = Path(trained) / "config.yaml"
    text = written.read_text()
    for changed in text.replace("steps: 12", "steps: 13"), "\0", "x: [":
        written.write_text(changed)
        result = cli("train", "--resume", trained, "-q")
        assert result.code == 2 and "not the config of its checkpoints" in result.err
    written.unlink()
    assert cli("train", "--resume", trained, "-q").code == 0 and written.read_text() == text


def test_missing_log_lines_are_counted_when_a_run_is_resumed(cli: Cli, trained: str) -> None:
    metrics = Path(trained) / "metrics.jsonl"
    metrics.write_text("".join(metrics.read_text().splitlines(keepends=True)[:1]) + "{}\nfoo\n[1]\n")
    assert cli("plot", "--checkpoint", trained, "--kind", "curve").code == 0
    result = cli("train", "--resume", trained, "-q")
    assert result.code == 0
    assert result.err == f"{metrics}: 2 log lines before step 12 are missing and cannot be restored\n"


def test_a_missing_newest_checkpoint_is_reported_by_each_command(cli: Cli, trained: str) -> None:
    (Path(trained) / "checkpoints" / "step-00000012.pt").unlink()
    message = f"{trained}/checkpoints/step-00000012.pt: missing; using the newest checkpoint, step-00000008.pt"
    assert message in cli("eval", "--checkpoint", trained, "--tasks", "3").err
    assert message in cli("plot", "--checkpoint", trained, "--kind", "fit").err
    assert message in cli("train", "--resume", trained, "-q").err
    (Path(trained) / "last.json").write_text("[1]")
    damaged = cli("eval", "--checkpoint", trained, "--tasks", "3")
    assert "last.json: damaged; using the newest checkpoint, step-00000012.pt" in damaged.err


def test_resume_auto_with_out_can_be_repeated(cli: Cli) -> None:
    options = ["-c", "smoke", *TINY_RUN, "-q", "--resume", "auto", "--out", "job"]
    for _ in range(3):
        result = cli("train", *options)
        assert (result.code, result.out) == (0, "job\n")
    assert cli("train", *options, "-s", "run.seed=1").code == 3


def test_a_run_whose_log_has_too_many_lines_to_be_read_is_resumed(cli: Cli, trained: str) -> None:
    """Lines are cut and appended without reading them all; the evaluation at outer step 12 is not repeated."""
    metrics = Path(trained) / "metrics.jsonl"
    text = "{}\n" * 100_001 + metrics.read_text()
    metrics.write_text(text)
    assert cli("train", "--resume", trained, "-q").code == 0 and metrics.read_text() == text
    assert cli("train", "--resume", f"{trained}/checkpoints/step-00000008.pt", "-q").code == 0
    assert metrics.read_text() == text
    assert cli("plot", trained, "--kind", "curve").code == 3


@pytest.mark.parametrize("name", ["SHA256SUMS", "other.pt/..", "x" * 300 + ".pt", "step-00000099.pt"])
def test_a_last_json_that_names_no_checkpoint_of_the_run_loses_none(name: str, cli: Cli, trained: str) -> None:
    """The newest checkpoint is resumed, with a warning of one line; the run ends with the same bytes."""
    expected = (Path(trained) / "metrics.jsonl").read_bytes()
    options = ["-c", "smoke", *TINY_RUN, "-s", "run.checkpoint_every=4", "--out", trained, "--resume", "auto"]
    last = Path(trained) / "last.json"
    (Path(trained) / "checkpoints" / "step-00000012.pt").unlink()
    last.write_text(json.dumps({"schema_version": 1, "checkpoint": f"checkpoints/{name}", "sha256": "0" * 64}))
    result = cli("train", *options)
    assert result.code == 0 and f"{trained}: resumed at outer step 8" in result.err
    assert result.err.count("using the newest checkpoint") == 1 and "\\n" not in result.err
    assert (Path(trained) / "metrics.jsonl").read_bytes() == expected


def test_a_damaged_renamed_checkpoint_is_passed_over_for_any_other(cli: Cli, trained: str) -> None:
    saved, last = Path(trained) / "checkpoints", Path(trained) / "last.json"
    (saved / "a.pt").write_bytes(b"damaged")
    last.write_text(json.dumps({"schema_version": 1, "checkpoint": "checkpoints/a.pt", "sha256": "0" * 64}))
    options = ["-c", "smoke", *TINY_RUN, "-s", "run.checkpoint_every=4", "--out", trained, "--resume", "auto"]
    result = cli("train", *options)
    assert result.code == 0 and f"{trained}: resumed at outer step 12" in result.err and "a.pt: " in result.err


def test_a_last_json_of_a_newer_version_is_refused(cli: Cli, trained: str) -> None:
    last = Path(trained) / "last.json"
    last.write_text(json.dumps(json.loads(last.read_text()) | {"schema_version": 2}))
    for options in (["eval", trained], ["train", "--resume", trained]):
        result = cli(*options)
        assert result.code == 4 and result.err.startswith(
            f"{last}: written by a newer maml (schema 2, this one reads 1)"
        )
