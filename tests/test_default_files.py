"""Default files of report, export and compare: other runs have other files, and none is overwritten without a word."""

import hashlib
import os
import shutil
from pathlib import Path

import pytest

from maml_cli.evaluation import default_file, open_run
from tests.conftest import Cli

PUBLISHED = ["best-5shot", "finn-10shot"]


def _default(*runs: str, ending: str = "compare.png") -> str:
    return str(default_file([open_run(Path(run)) for run in runs], ending))


def test_published_runs_have_files_of_their_own(cli: Cli) -> None:
    for name in PUBLISHED:
        exported = cli("export", "params", name, "--format", "torch")
        assert (exported.code, exported.out) == (0, f"outputs/{name}-params.pt\n")
        assert cli("report", name, "--tasks", 2, "--steps", 1).out == f"outputs/{name}-report.html\n"
    first, second = (Path(f"outputs/{name}-params.pt").read_bytes() for name in PUBLISHED)
    assert first != second
    compared = cli("compare", *PUBLISHED, "--shots", 5, "--steps", 1, "--tasks", 2)
    assert compared.code == 0 and compared.err.endswith("drawn as outputs/best-5shot+finn-10shot-compare.png\n")
    assert Path("outputs/best-5shot+finn-10shot-compare.png").exists() and not Path("outputs/compare.png").exists()


def test_a_run_directory_has_its_own(cli: Cli, trained: str) -> None:
    assert cli("export", "params", trained).out == f"{trained}/params.npz\n"
    assert _default(trained, ending="report.html") == f"{trained}/report.html"


def test_names_that_do_not_tell_runs_apart_are_followed_by_a_digest_of_their_paths(cli: Cli, trained: str) -> None:
    for place in ("outputs/a", "outputs/b", "a", "s1/b", "s2/b", "outputs/finn-10shot"):
        shutil.copytree(trained, place)
    (checkpoint,) = Path("a/checkpoints").glob("*12.pt")
    shutil.copy(checkpoint, "outputs/b.pt")
    Path("latest").symlink_to("outputs/a")
    assert _default("outputs/a", "outputs/b") == "outputs/a+b-compare.png"
    assert _default("outputs/a", os.path.abspath("outputs/b")) == "outputs/a+b-compare.png"
    digest = hashlib.sha256("\n".join(map(os.path.abspath, ("outputs/a", "s1/b"))).encode()).hexdigest()[:8]
    assert _default("outputs/a", "s1/b") == f"outputs/a+b-{digest}-compare.png"
    alike = [("outputs/a", "outputs/b"), ("outputs/a", "s1/b"), ("outputs/a", "s2/b"), ("a", "outputs/b")]
    alike += [("outputs/a", "outputs/b.pt")]
    assert len({_default(*runs) for runs in alike}) == len(alike)
    assert _default("finn-10shot", "outputs/a") != _default("outputs/finn-10shot", "outputs/a")
    assert _default("outputs/b.pt") != _default("outputs/b")
    assert str(checkpoint.parent.parent) == "a" and _default(str(checkpoint)) == "a/compare.png"


@pytest.mark.parametrize("name", ["x" * 200, "\N{GRINNING FACE}" * 60])
def test_long_names_are_cut_and_told_apart_by_the_digest(name: str, cli: Cli, trained: str) -> None:
    runs = [f"outputs/{name[:-1]}{end}" for end in "ab"]
    for run in runs:
        shutil.copytree(trained, run)
    files = [Path(_default(run, trained)) for run in runs]
    assert files[0] != files[1]
    for file in files:
        assert file.name.startswith(name[:50]) and len(os.fsencode(file.name)) <= 255 - 10  # a temporary name is longer


def test_results_of_an_earlier_checkpoint_are_named_after_further_outer_steps(cli: Cli) -> None:
    small = ["--set=outer.steps=4", "--set=run.engine=eager", "--set=run.eval_every=0", "--set=model.hidden=[8]"]
    first = cli("train", "--config", "smoke", *small, "--out", "run")
    assert first.code == 0 and "earlier outer step" not in first.err
    assert cli("eval", "run", "--tasks", 2, "--out", "run/eval.json").code == 0
    assert cli("export", "params", "run").code == 0
    before = Path("run/eval.json").read_bytes()
    assert "earlier outer step" not in cli("train", "--resume", "run").err
    extended = cli("train", "--resume", "run", "--set", "outer.steps=6").err
    line = "run: eval.json, params.npz: of an earlier outer step, to be written again\n"
    assert line in extended and Path("run/eval.json").read_bytes() == before
