"""Events of TensorBoard, read back with its own reader: the numbers of the log, alphas, fits, and nothing twice."""

import errno
import io
import json
import struct
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

import maml_cli as maml
from maml_cli.config import Config
from maml_cli.dev.soak.processes import preload, start, wait
from maml_cli.engines import kernel_build, make_engine
from maml_cli.errors import DivergedError
from maml_cli.evaluation import fit_validation_tasks
from maml_cli.experiment import build_experiment
from maml_cli.reporting import observe_training, tensorboard
from maml_cli.reporting.tensorboard import MOST_IMAGES, _has_image
from maml_cli.runs import create_run, open_checkpoint, read_lines
from maml_cli.training import Hooks, RunGroup, init_state, plan_training, run_session, train
from tests.conftest import Cli

INTERVALS = ("outer.steps=12", "run.log_every=3", "run.eval_every=4", "run.checkpoint_every=4", "run.eval_tasks=4")
TINY = (*INTERVALS, "run.engine=eager", "outer.tasks_per_step=3", "model.hidden=[4]")
ALPHAS = ("inner.steps=2", "inner.alpha.learned=true", "inner.alpha.per=tensor", "inner.alpha.per_step=true")
WITH = "run.tensorboard=true"
OPTIONS = [word for setting in (*TINY, WITH) for word in ("--set", setting)]

Points = dict[str, list[tuple[int, float]]]


def _events(run: Path, seed: int = 0) -> EventAccumulator:
    everything = {"scalars": 0, "histograms": 0, "images": 0}
    return EventAccumulator(str(run / "tensorboard" / f"seed-{seed}"), size_guidance=everything).Reload()


def _scalars(run: Path, seed: int = 0) -> Points:
    events = _events(run, seed)
    return {tag: [(event.step, event.value) for event in events.Scalars(tag)] for tag in events.Tags()["scalars"]}


def _float32(value: float) -> float:
    return float(struct.unpack("f", struct.pack("f", value))[0])


def _logged(run: Path, index: int | None) -> Points:
    """The numbers of metrics.jsonl and the rates of timing.jsonl by tag, null left out, of one of several runs or of
    the only one."""
    points: Points = defaultdict(list)

    def add(tag: str, line: dict[str, Any], value: Any) -> None:
        if value is not None:
            points[tag].append((line["step"], _float32(value)))

    def add_steps(tag: str, line: dict[str, Any], values: Any, *, first: int) -> None:
        for number, value in enumerate(own(values) or [], first):
            add(f"{tag}_step_{number}", line, value)

    def own(value: Any) -> Any:
        return value if index is None else value[index]

    for line in [*read_lines(run / "metrics.jsonl"), *read_lines(run / "timing.jsonl")]:
        for key in {"loss", "grad_norm", "skipped_tasks"} & line.keys():
            add(f"training/{key}", line, own(line[key]))
        if "outer_steps_per_second" in line:
            add("training/outer_steps_per_second", line, line["outer_steps_per_second"])
        for group, name in (("alpha", "alpha_mean"), ("alpha_grad", "alpha_grad")):
            for key, value in line.get(group, {}).items():
                add_steps(f"{name}/{key}", line, value, first=1)
        for measure in ("mse", "mae"):
            if "eval" in line:
                add_steps(f"validation/{measure}", line, line["eval"][f"grid_{measure}"], first=0)
                add_steps(f"validation_query/{measure}", line, line["eval"][f"query_{measure}"], first=0)
    return points


@pytest.fixture(autouse=True)
def _few_images(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images take most of the time: only the tests marked by `with_images` have them drawn, and `two_seeds`."""
    if not getattr(request.function, "with_images", False):
        monkeypatch.setattr(tensorboard, "_has_image", lambda config, step: False)


def with_images(test: Callable[..., None]) -> Callable[..., None]:
    test.with_images = True  # type: ignore[attr-defined]
    return test


@pytest.fixture(scope="module")
def two_seeds(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two seeds, two inner steps with alphas of their own for each tensor, and clipped tasks."""
    run = tmp_path_factory.mktemp("tensorboard") / "run"
    maml.train("smoke", *TINY, *ALPHAS, WITH, "run.seeds=[7,5]", "outer.clip_task_norm=10", out=run)
    return run


def test_scalars_are_the_numbers_of_the_log_in_float32(two_seeds: Path) -> None:
    for index, seed in enumerate([7, 5]):
        expected = _logged(two_seeds, index)
        assert _scalars(two_seeds, seed) == expected
        assert [step for step, _ in expected["training/loss"]] == [3, 6, 9, 12]
        assert [step for step, _ in expected["validation/mse_step_2"]] == [0, 4, 8, 12]
        assert len(expected) == 4 + 2 * 4 * 2 + 4 * 3  # alphas and gradients: 4 tensors, 2 steps; errors: 3 steps


def test_every_alpha_is_in_a_histogram_at_each_evaluation(tmp_path: Path) -> None:
    """With an alpha for each parameter, the number of values is that of the tensor, and their sum is its sum: those of
    the second seed, which differ from those of the first."""
    settings = ("inner.alpha.learned=true", "inner.alpha.per=parameter", "inner.alpha.lr=0.01")
    maml.train("smoke", *TINY, *settings, WITH, "run.seeds=2", out=tmp_path / "run")
    events = _events(tmp_path / "run", 1)
    shapes = {"hidden0.w": 4, "hidden0.b": 4, "head.w": 4, "head.b": 1}
    assert sorted(events.Tags()["histograms"]) == sorted(f"alpha/{key}" for key in shapes)
    for key, count in shapes.items():
        for event in events.Histograms(f"alpha/{key}"):
            saved = open_checkpoint(tmp_path / "run" / f"checkpoints/step-{event.step:08d}.pt").contents
            first, alphas = saved["meta_params"]["rule_params"][key].double()
            assert event.step == 0 or not torch.equal(first, alphas)
            value = event.histogram_value
            assert value.num == sum(value.bucket) == alphas.numel() == count
            assert (value.min, value.max) == (alphas.min().item(), alphas.max().item())
            assert value.sum == pytest.approx(alphas.sum().item(), rel=1e-12)
        assert [event.step for event in events.Histograms(f"alpha/{key}")] == [0, 4, 8, 12]


def test_alphas_of_inner_steps_have_histograms_of_their_own_and_fixed_ones_none(two_seeds: Path, cli: Cli) -> None:
    tags = [f"alpha/{key}_step_{step}" for key in ("hidden0.w", "hidden0.b", "head.w", "head.b") for step in (1, 2)]
    assert _events(two_seeds, 5).Tags()["histograms"] == tags
    assert cli("train", "--config", "smoke", *OPTIONS, "--out", "fixed").code == 0
    assert _events(Path("fixed")).Tags()["histograms"] == []


def test_fits_are_images_of_each_evaluation_and_seed(two_seeds: Path) -> None:
    seen = set[bytes]()
    for seed in (7, 5):
        images = _events(two_seeds, seed).Images("validation/fit")
        assert [image.step for image in images] == [0, 4, 8, 12]
        for image in images:
            decoded = Image.open(io.BytesIO(image.encoded_image_string))
            decoded.load()
            assert decoded.format == "PNG" and decoded.size == (image.width, image.height) == (930, 330)
            colours = decoded.convert("RGB").getcolors(100_000) or []
            assert max(colours)[1] == (255, 255, 255) and len(colours) > 50  # a background, lines and text
        seen |= {image.encoded_image_string for image in images}
    assert len(seen) == 8


def test_a_fit_is_of_its_seed_and_of_the_same_tasks_whenever_it_is_drawn() -> None:
    """Tasks are those of the seed, and predictions before adapting those of the parameters of its run."""
    config = Config.from_yaml("smoke", *TINY, "run.seeds=2")
    experiment = build_experiment(config)
    start = init_state(config, experiment).meta_params
    later = start._replace(params={key: 2 * value for key, value in start.params.items()})
    first, again = (fit_validation_tasks(config, experiment, params, 1, count=3) for params in (start, later))
    other = fit_validation_tasks(config, experiment, start, 0, count=3)
    assert len(first) == 3 and not torch.equal(first[0].truth, other[0].truth)
    for one, two in zip(first, again, strict=True):
        assert torch.equal(one.truth, two.truth) and torch.equal(one.support_y, two.support_y)
        inputs = one.x.float().reshape(1, 1, -1, 1).expand(2, -1, -1, -1)
        params = {key: value.unsqueeze(1) for key, value in start.params.items()}
        expected = experiment.predict(params, inputs)[1, 0, :, 0].double()
        assert torch.allclose(one.predictions[0], expected, atol=1e-6)


@pytest.mark.parametrize(("steps", "every"), [(1, 1), (12, 4), (70_000, 1000), (20_000, 7), (999, 10), (50, 1000)])
def test_images_are_few_and_include_the_first_and_the_last_evaluation(steps: int, every: int) -> None:
    config = Config.from_yaml("smoke", f"outer.steps={steps}", f"run.eval_every={every}")
    evaluations = sorted({*range(0, steps + 1, every), steps})
    images = [step for step in evaluations if _has_image(config, step)]
    assert {0, steps} <= {*images} and min(len(evaluations), MOST_IMAGES // 2) <= len(images) <= MOST_IMAGES


ENGINES = ["eager", "reference", *(["native"] if kernel_build.compiler() else [])]


@with_images
@pytest.mark.parametrize("engine", ENGINES)
def test_the_log_and_the_checkpoints_are_the_same_without_events(engine: str, tmp_path: Path) -> None:
    noisy = (
        "run.seeds=2",
        "run.eval_every=12",
        "outer.weight_noise=0.01",
        "tasks.noise=0.1",
        f"run.engine={engine}",
        *ALPHAS,
    )
    for name, setting in (("with", WITH), ("without", "run.tensorboard=false")):
        torch.manual_seed(0)
        maml.train("smoke", *TINY, *noisy, setting, out=tmp_path / name)
        (tmp_path / f"{name}.random").write_bytes(bytes(torch.get_rng_state().tolist()))
    first, second = tmp_path / "with", tmp_path / "without"
    assert (first / "metrics.jsonl").read_bytes() == (second / "metrics.jsonl").read_bytes()
    assert (tmp_path / "with.random").read_bytes() == (tmp_path / "without.random").read_bytes()
    files = sorted(file.name for file in first.glob("checkpoints/*.pt"))
    assert files == sorted(file.name for file in second.glob("checkpoints/*.pt")) and len(files) == 4
    for file in files:
        contents = [open_checkpoint(run / "checkpoints" / file).contents for run in (first, second)]
        assert contents[0].pop("config") != contents[1].pop("config")
        assert _plain(contents[0]) == _plain(contents[1])
    assert not (second / "tensorboard").exists()


def _plain(contents: Any) -> Any:
    if isinstance(contents, dict):
        return {key: _plain(value) for key, value in contents.items()}
    return contents.tolist() if isinstance(contents, torch.Tensor) else contents


@with_images
def test_a_resumed_run_has_each_outer_step_once(tmp_path: Path) -> None:
    """Stopped after step 9, resumed from the checkpoint after 4: the events after 4 are replaced."""
    run, seen = tmp_path / "run", [0]
    plan = plan_training("smoke", [*TINY, WITH], out=run, resume=None, device=None)

    def on_step(step: int, loss: float) -> None:
        seen[0] = step

    result = run_session(
        plan, quiet=True, on_step=on_step, should_stop=lambda: seen[0] >= 9, observe=observe_training
    ).result
    assert result.interrupted and 9 <= result.step < 12
    time.sleep(1.1)  # files of events are read in the order of their seconds
    again = plan_training(None, [], out=None, resume=str(run / "checkpoints/step-00000004.pt"), device=None)
    assert run_session(again, quiet=True, observe=observe_training).result.step == 12
    assert len([*run.glob("tensorboard/seed-0/*")]) == 2
    assert _scalars(run) == _logged(run, None)
    assert [image.step for image in _events(run).Images("validation/fit")] == [0, 4, 8, 12]


def test_a_run_that_starts_again_has_the_events_of_its_second_start_alone(cli: Cli) -> None:
    assert cli("train", "--config", "smoke", *OPTIONS, "--out", "run").code == 0
    for file in [*Path("run/checkpoints").iterdir(), Path("run/last.json")]:
        file.unlink()
    time.sleep(1.1)
    assert cli("train", "--resume", "run").code == 0
    assert _scalars(Path("run")) == _logged(Path("run"), None)


def test_a_diverged_seed_has_no_more_events_and_the_others_do(tmp_path: Path) -> None:
    """The second of two starts where its losses overflow: null in the log from step 3 on."""
    run = tmp_path / "run"
    config = Config.from_yaml("smoke", *TINY, *ALPHAS, WITH, "run.seeds=2")
    experiment = build_experiment(config)
    create_run(run, name="x", config=config)
    state = init_state(config, experiment)
    for leaf in state.meta_params.params.values():
        leaf[1] = 1e30
    engine = make_engine("eager", config, experiment)
    with observe_training(config, run, None) as observer:
        result = train(config, [RunGroup(config, experiment, state, engine)], run, hooks=Hooks(observer=observer))
    assert result.diverged == {1: 1}
    lines = read_lines(run / "metrics.jsonl")
    assert [line["loss"][1] for line in lines if "loss" in line] == [None] * 4
    assert _scalars(run, 0) == _logged(run, 0)
    diverged = _scalars(run, 1)
    assert diverged == _logged(run, 1) and "training/loss" not in diverged
    assert [event.step for event in _events(run, 1).Histograms("alpha/head.w_step_1")] == [0]


def test_events_before_a_divergence_of_all_seeds_are_there(tmp_path: Path) -> None:
    run = tmp_path / "run"
    with pytest.raises(DivergedError):
        maml.train("smoke", *TINY, WITH, "inner.steps=5", "inner.alpha.init=1e30", out=run)
    assert _scalars(run) == _logged(run, None)
    assert not _writing_threads()


def _writing_threads() -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if type(thread).__module__.startswith("tensorboard.")]


def test_processes_that_share_a_training_write_each_event_once(tmp_path: Path) -> None:
    """Two processes, a seed each: the leader writes the events of both."""
    preload()
    plan = ["--config=smoke", "--quiet", "--out=run", "--set=run.seeds=2", *OPTIONS, *_options(ALPHAS)]
    children = [start(body, tmp_path) for body in _bodies(plan, 2)]
    outcomes = [wait(child, seconds=60) for child in children]
    assert [outcome.code for outcome in outcomes] == [0, 0], outcomes
    run = tmp_path / "run"
    for index in (0, 1):
        assert len([*(run / f"tensorboard/seed-{index}").iterdir()]) == 1
        assert _scalars(run, index) == _logged(run, index)
        assert len(_events(run, index).Histograms("alpha/head.w_step_2")) == 4


def _options(settings: tuple[str, ...]) -> list[str]:
    return [f"--set={setting}" for setting in settings]


def _bodies(arguments: list[str], size: int) -> Iterator[Callable[[], None]]:
    """`maml train` in `size` processes that see the environment of torchrun."""
    import os
    import socket

    from maml_cli.cli.app import main

    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    common = {"MASTER_ADDR": "localhost", "MASTER_PORT": port, "TORCHELASTIC_RUN_ID": "test"}
    common |= {"WORLD_SIZE": str(size), "LOCAL_WORLD_SIZE": str(size)}
    for rank in range(size):

        def body(rank: int = rank) -> None:
            os.environ.update(common | {"RANK": str(rank), "LOCAL_RANK": str(rank)})
            main(["train", *arguments])

        yield body


@pytest.mark.parametrize(
    "arguments",
    [
        ["train", "--config", "smoke", *OPTIONS],
        ["train", "--config", "smoke", *OPTIONS, "--dry-run"],
        ["sweep", "--config", "smoke", *OPTIONS, "--grid", "inner.steps=1,2"],
    ],
)
def test_without_tensorboard_the_message_says_how_to_install_it(
    arguments: list[str], cli: Cli, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setitem(sys.modules, "tensorboard", None)
    result = cli(*arguments)
    install = "install it with: pip install 'maml-cli[tensorboard]'"
    assert (result.code, result.err) == (2, f"run.tensorboard: needs TensorBoard, which is not installed; {install}\n")
    assert [*tmp_path.iterdir()] == []


def test_a_full_disk_is_one_line_and_the_resumed_run_is_complete(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    """The disk is full when the first events after outer step 4 are written, in a thread of SummaryWriter."""
    from tensorboard.compat.tensorflow_stub.io import gfile

    append = gfile.LocalFileSystem.append

    def full(self: Any, filename: str, content: bytes, binary_mode: bool = False) -> None:
        if Path("run/checkpoints/step-00000004.pt").exists():
            raise OSError(errno.ENOSPC, "No space left on device")
        append(self, filename, content, binary_mode)

    with monkeypatch.context() as patch:
        patch.setattr(gfile.LocalFileSystem, "append", full)
        result = cli("train", "--config", "smoke", *OPTIONS, "--quiet", "--out", "run")
    assert result.code == 3 and result.err.splitlines() == [
        "run/tensorboard: cannot be written: No space left on device; correct that, then resume with: maml train "
        "--resume run"
    ]
    time.sleep(1.1)
    assert cli("train", "--resume", "run").code == 0
    assert _scalars(Path("run")) == _logged(Path("run"), None)
    assert not _writing_threads()


def test_errors_of_other_threads_are_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    reported = list[object]()
    monkeypatch.setattr(threading, "excepthook", lambda failure: reported.append(failure.exc_value))
    error = OSError("of another thread")

    def fail() -> None:
        raise error

    with observe_training(Config.from_yaml("smoke", WITH), tmp_path, None):
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
    assert reported == [error]


@pytest.mark.parametrize("kind", ["link", "link of a seed", "file"])
def test_a_link_or_a_file_in_place_of_the_directory_is_refused(kind: str, cli: Cli, tmp_path: Path) -> None:
    assert cli("train", "--config", "smoke", *OPTIONS, "--out", "run").code == 0
    (tmp_path / "elsewhere").mkdir()
    name = "seed-0" if kind == "link of a seed" else "."
    folder = Path("run/tensorboard") / name
    Path("run/tensorboard").rename("events")
    if kind == "link of a seed":
        Path("run/tensorboard").mkdir()
    if kind == "file":
        folder.write_text("")
    else:
        folder.symlink_to(tmp_path / "elsewhere")
    result = cli("train", "--resume", "run")
    assert result.code == 3
    assert result.err == f"{folder}: not a directory of this run, but a link or a file; remove it\n"
    assert [*(tmp_path / "elsewhere").iterdir()] == []


def test_a_directory_that_cannot_be_written_is_one_error(tmp_path: Path) -> None:
    config = Config.from_yaml("smoke", *TINY, WITH)
    (tmp_path / "tensorboard").write_text("")
    with pytest.raises(OSError) as stop, observe_training(config, tmp_path, None):
        pass
    assert stop.value.filename == str(tmp_path / "tensorboard/seed-0")


def test_a_trial_of_a_sweep_writes_events(cli: Cli) -> None:
    result = cli("sweep", "--config", "smoke", *OPTIONS, "--grid", "inner.steps=1", "--out", "sweep")
    assert result.code == 0, result.err
    (run,) = [file.parent for file in Path("sweep").glob("**/config.yaml")]
    assert _scalars(run) == _logged(run, None)


def test_commands_about_runs_ignore_the_events(cli: Cli) -> None:
    assert cli("train", "--config", "smoke", *OPTIONS, "--out", "outputs/a").code == 0
    (row,) = json.loads(cli("runs", "--json").out)["runs"]
    assert row["path"].endswith("a")
    others = [["diff", "outputs/a", "outputs/a", "--tasks", "4"], ["clean", "outputs/a", "--keep-last", "1", "--yes"]]
    for command in (["eval", "outputs/a", "--tasks", "4"], *others):
        result = cli(*command)
        assert result.code == 0 and "tensorboard" not in result.err, result.err
    assert _scalars(Path("outputs/a")) == _logged(Path("outputs/a"), None)
