"""Hostile checkpoints whose digests are right: each is refused by its structure, before anything computes with it."""

import io
import pickle
import random
import shutil
import struct
import time
import tracemalloc
import warnings
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch

from maml_cli.config import Config, from_dict
from maml_cli.engines import OUTER_OPTIMIZERS, make_engine
from maml_cli.errors import CheckpointError, ConfigError, FileError
from maml_cli.experiment import build_experiment
from maml_cli.runs import archive, checkpoint, create_run, open_checkpoint, tensor_pickle
from maml_cli.runs.archive import Member
from maml_cli.training import init_state, restore_state, snapshot
from tests.conftest import Cli
from tests.hostile_checkpoints import (
    content_spans,
    leaves,
    members,
    removed,
    replaced,
    sealed,
    with_pickle,
    wrong_values,
)

CONFIG = Config.model_validate(
    {
        "tasks": {"num_support": 2, "num_query": 2},
        "model": {"hidden": [3]},
        "inner": {"alpha": {"learned": True, "per": "parameter", "optimizer": "momentum", "lr": 1e-4}},
        "outer": {"steps": 8, "tasks_per_step": 2, "weight_noise": 0.01},
        "run": {"seeds": 2},
    }
)


def _contents() -> dict[str, Any]:
    """After three outer steps."""
    experiment = build_experiment(CONFIG)
    state = init_state(CONFIG, experiment)
    make_engine("reference", CONFIG, experiment)(state, 3)
    return snapshot(CONFIG, state)


CONTENTS = _contents()
GOOD = checkpoint.encode(CONTENTS)


def _open(data: bytes, folder: Path) -> None:
    """Read a checkpoint as `maml train --resume` does, up to the state of the training; every warning is an error."""
    (folder / "x.pt").write_bytes(data)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        opened = open_checkpoint(folder / "x.pt")
        restore_state(opened.config, build_experiment(opened.config), opened.contents)


def _zip(*, compression: int = zipfile.ZIP_STORED, extra: bytes = b"", attributes: int = 0, flags: int = 0) -> bytes:
    """The members of a good checkpoint in an archive of Python's zipfile, with room for a digest as its comment."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as file:
        for name, content in members(GOOD):
            info = zipfile.ZipInfo(name)
            info.compress_type, info.extra, info.external_attr, info.flag_bits = compression, extra, attributes, flags
            file.writestr(info, content)
        file.comment = b"0" * 64
    return stream.getvalue()[:-64]


def _many_entries_of_one_member() -> bytes:
    """20,000 entries of the directory that share one member."""
    body, name = archive.pack([Member("archive/data.pkl", b"N.")])[:-64], b"archive/data.pkl"
    start = body.index(b"PK\1\2")
    entry = body[start : start + 46 + len(name)]
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 20_000, 20_000, 20_000 * len(entry), start, 64)
    return body[:start] + 20_000 * entry + end


ARCHIVES = {
    "written by zipfile": _zip(),
    "compressed": _zip(compression=zipfile.ZIP_DEFLATED),
    "extra fields": _zip(extra=struct.pack("<2H", 1, 0)),
    "directory attributes": _zip(attributes=0x10),
    "a flag of encryption": _zip(flags=1),
    "20,000 entries": _many_entries_of_one_member(),
    "no members": archive.pack([])[:-64],
    "data before the archive": b"x" + GOOD[:-64],
    "data after the archive": GOOD[:-64] + b"x",
    "two archives": GOOD + GOOD[:-64],
    "a gap": GOOD[:100] + bytes(8) + GOOD[100:-64],
    "a member twice": archive.pack([*members(GOOD), members(GOOD)[-1]])[:-64],
    "a member of another name": archive.pack([*members(GOOD), Member("../x", b"")])[:-64],
    "no byteorder": archive.pack([members(GOOD)[0], *members(GOOD)[2:]])[:-64],
    "big endian": archive.pack([members(GOOD)[0], Member("archive/byteorder", b"big"), *members(GOOD)[2:]])[:-64],
    "reversed": archive.pack(members(GOOD)[::-1])[:-64],
    "one tensor too few": archive.pack(members(GOOD)[:-1])[:-64],
    "one tensor too many": archive.pack([*members(GOOD), Member(f"archive/data/{len(members(GOOD)) - 3}", b"")])[:-64],
}


@pytest.mark.parametrize("name", ARCHIVES)
def test_archives_that_differ_from_those_of_maml_are_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="not a checkpoint") as error:
        _open(sealed(ARCHIVES[name]), tmp_path)
    assert ": ;" not in str(error.value) and "\n" not in str(error.value)


def test_each_bit_between_the_members_is_fixed_by_the_form_of_the_archive() -> None:
    """Flags, attributes, sizes, offsets, dates: with a right digest, no flip of one of them is accepted."""
    covered = {position for span in content_spans(GOOD) for position in span}
    free = [position for position in range(len(GOOD) - 64) if position not in covered]
    assert len(free) > 1000
    for position in random.Random(0).sample(free, 500):
        data = bytearray(GOOD[:-64])
        data[position] ^= 1 << random.Random(position).randrange(8)
        with pytest.raises(CheckpointError):
            checkpoint.decode(sealed(bytes(data)))


def test_a_flipped_bit_of_the_pickle_is_refused_or_another_value_in_canonical_form() -> None:
    pickled = members(GOOD)[0].content
    num_refused = 0
    for bit in random.Random(0).sample(range(8 * len(pickled)), 300):
        data = bytearray(pickled)
        data[bit // 8] ^= 1 << bit % 8
        hostile = with_pickle(GOOD, bytes(data))
        try:
            decoded = checkpoint.decode(hostile)
        except CheckpointError:
            num_refused += 1
        else:
            assert checkpoint.encode(decoded) == hostile
    assert num_refused > 150


def _text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def _tensor(
    shape: str = "(J\3\0\0\0t", strides: str = "(J\1\0\0\0t", storage: str = "FloatStorage", device: str = "cpu"
) -> bytes:
    """The pickle of a dictionary with a tensor that has the bytes of the first storage, three numbers by default."""
    kind = b"ctorch\n" + storage.encode() + b"\n"
    arguments = b"((" + _text("storage") + kind + _text("0") + _text(device) + b"J\3\0\0\0tQJ\0\0\0\0"
    tail = shape.encode("latin-1") + strides.encode("latin-1") + b"\x89ccollections\nOrderedDict\n)RtR"
    return b"\x80\x02}(" + _text("x") + b"ctorch._utils\n_rebuild_tensor_v2\n" + arguments + tail + b"u."


class Evil:
    def __reduce__(self) -> Any:
        return (Path.touch, (Path("pwned"),))


PICKLES = {
    "code": pickle.dumps({"x": Evil()}, protocol=2),
    "references": pickle.dumps([[value := ["a"] * 3, value], value], protocol=2),
    "memo of 2^31 entries": b"\x80\x02Nr\xff\xff\xff\x7f.",
    "nested 100,000 times": b"\x80\x02" + b"](" * 100_000 + b"e" * 100_000 + b".",
    "nested 9 times": tensor_pickle.dumps({"x": [[[[[[[[[]]]]]]]]]})[0],
    "a number of 2 GiB": b"\x80\x02\x8b\xff\xff\xff\x7f" + bytes(100) + b".",
    "a number of thousands of digits": b"\x80\x02L" + b"9" * 10_000 + b"L\n.",
    "a surrogate": b"\x80\x02}(X\3\0\0\0\xed\xa0\x80Nu.",
    "a key twice": b"\x80\x02}(X\1\0\0\0aNX\1\0\0\0aNu.",
    "an odd number of items": b"\x80\x02}(X\1\0\0\0au.",
    "a short opcode": b"\x80\x02}(X\1\0\0\0aK\1u.",
    "two values": b"\x80\x02NN.",
    "nothing": b"",
    "bytes after the end": b"\x80\x02N.N",
    "protocol 5": pickle.dumps({}, protocol=5),
    "a tensor of 4 TB by strides of 0": _tensor("(J\0\0\0\x40J\0\4\0\0t", "(J\0\0\0\0J\0\0\0\0t"),
    "a negative axis": _tensor("(J\xff\xff\xff\xfft"),
    "a stride of 0": _tensor(strides="(J\0\0\0\0t"),
    "fewer strides": _tensor(strides="(t"),
    "quantised": _tensor(storage="QInt8Storage"),
    "on the device meta": _tensor(device="meta"),
    "2^30 axes of 1": _tensor("(" + "J\1\0\0\0" * 200 + "t"),
}


@pytest.mark.parametrize("name", PICKLES)
def test_pickles_that_differ_from_those_of_maml_are_refused_and_nothing_in_them_runs(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    data = archive.pack(
        [Member("archive/data.pkl", PICKLES[name]), *members(GOOD)[1:3], Member("archive/data/0", bytes(12))]
    )
    with pytest.raises(CheckpointError, match="its pickle is not in the form that maml writes"):
        _open(data, tmp_path)
    assert not (tmp_path / "pwned").exists()


def test_the_builder_of_hostile_tensors_builds_a_good_one_by_default() -> None:
    """Otherwise the refusals above would show nothing."""
    assert tensor_pickle.loads(_tensor(), [memoryview(bytes(12))])["x"].tolist() == [0, 0, 0]


def test_values_of_wrong_kinds_sizes_and_shapes_are_refused_anywhere_in_the_contents(tmp_path: Path) -> None:
    """Each value of the contents is replaced by values of other kinds, or removed, the sections of the config among
    them. A valid value of a config, and the text of a version, may be another one."""
    num_refused = 0
    paths = [(path, value) for path, value in leaves(CONTENTS) if path[0] != "config" or len(path) < 3]
    for path, value in paths:
        choices = wrong_values(value)
        wrong = [*random.Random(str(path)).sample(choices, 3), *choices[-2:]]
        hostile = [replaced(CONTENTS, path, item) for item in wrong if path != ("schema_version",)]
        for contents in [*hostile, removed(CONTENTS, path)]:
            if path[0] in ("config", "versions") and path[-1] in ("config", "maml", "torch") and len(path) > 1:
                continue
            if len(path) == 2 and path[0] == "config" and path[1] not in contents["config"]:
                continue  # keys that are missing have defaults
            with pytest.raises(CheckpointError) as error:
                _open(checkpoint.encode(contents), tmp_path)
            assert str(error.value).isprintable() and ": ;" not in str(error.value)
            num_refused += 1
    assert num_refused > 300


def _with(path: str, value: Any) -> dict[str, Any]:
    return replaced(CONTENTS, tuple(path.split("/")), value)


def _generator(offset: int, form: str, value: int) -> torch.Tensor:
    """The states of the generators, with `value` at `offset` in that of the first run."""
    states: torch.Tensor = CONTENTS["generators"].clone()
    changed = bytearray(states[0].tolist())
    struct.pack_into(form, changed, offset, value)
    states[0] = torch.tensor(list(changed), dtype=torch.uint8)
    return states


MOMENTS = CONTENTS["optimizers"]["params"]["head.w"]
WEIGHTS = CONTENTS["meta_params"]["params"]["head.w"]
HOSTILE_CONTENTS = {
    "step of the future": ("step is 9, more than the 8", _with("step", 9)),
    "step of the past": ("step is 3, not 2", _with("step", 2)),
    "moments at the start": ("has tensors that its config does not need", _with("step", 0)),
    "a run too many": ("its config has 2 seeds", _with("meta_params/params/head.w", torch.cat([WEIGHTS, WEIGHTS[:1]]))),
    "weights of no run": ("its config has 2 seeds", _with("meta_params/params/head.w", WEIGHTS[:0])),
    "weights in float64": ("its config needs float32", _with("meta_params/params/head.w", WEIGHTS.double())),
    "a weight that is NaN": ("which no training saves", _with("meta_params/params/head.w", WEIGHTS * float("nan"))),
    "a weight that is infinite": ("which no training saves", _with("meta_params/params/head.w", WEIGHTS / 0)),
    "short moments": (
        "its config needs float32 \\(2, 3, 1\\)",
        _with("optimizers/params/head.w/exp_avg", torch.ones(1, 3)),
    ),
    "a moment that is NaN": (
        "which no training saves",
        _with("optimizers/params/head.w/exp_avg", MOMENTS["exp_avg"] * float("nan")),
    ),
    "a negative square": (
        "which no training saves",
        _with("optimizers/params/head.w/exp_avg_sq", -1 - MOMENTS["exp_avg_sq"]),
    ),
    "another count of steps": ("step is 7, not 3", _with("optimizers/params/head.w/step", torch.tensor(7.0))),
    "all runs diverged": ("no active run", _with("diverged", torch.tensor([1, 2]))),
    "divergence of the future": ("not 0 to 3", _with("diverged", torch.tensor([0, 4]))),
    "negative skipped tasks": ("not 0 to 6", _with("skipped_tasks", torch.tensor([-1, 0]))),
    "a generator that is not seeded": ("state that does not exist", _with("generators", _generator(12, "<i", 0))),
    "words past the end of a generator": ("state that does not exist", _with("generators", _generator(8, "<i", 624))),
    "a generator of another seed": ("not that of its seed", _with("generators", CONTENTS["generators"].flip(0))),
    "generators without padding": ("state that does not exist", _with("generators", _generator(5055, "<B", 1))),
    "no generators": (
        "some of optimizers, generators, noise_generators are missing",
        removed(CONTENTS, ("generators",)),
    ),
    "an unknown key": ("Extra inputs are not permitted", CONTENTS | {"\x1b[2J": 1}),
    "5,000 unknown keys of a config": (
        "a section that is not a mapping of its keys",
        _with("config/inner", {f"k{number}": 1 for number in range(5000)}),
    ),
}


@pytest.mark.parametrize("name", HOSTILE_CONTENTS)
def test_contents_that_do_not_fit_their_config_are_refused_with_the_reason(name: str, tmp_path: Path) -> None:
    reason, contents = HOSTILE_CONTENTS[name]
    with pytest.raises(CheckpointError, match=reason):
        _open(checkpoint.encode(contents), tmp_path)


def test_a_state_that_no_generator_has_would_be_taken_by_torch() -> None:
    """The number of words that are left and the index of the next one disagree: draws would read past their end."""
    torch.Generator().set_state(_generator(8, "<i", 624)[0].clone())


def test_a_diverged_run_may_have_any_values(tmp_path: Path) -> None:
    """It is frozen; the moments of its optimiser are those of a gradient that is not finite."""
    moments = MOMENTS["exp_avg"].clone()
    moments[1] = float("nan")
    contents = _with("optimizers/params/head.w/exp_avg", moments)
    _open(checkpoint.encode(contents | {"diverged": torch.tensor([0, 2])}), tmp_path)


def test_a_checkpoint_named_for_another_outer_step_of_its_run_is_refused(tmp_path: Path) -> None:
    run = create_run(tmp_path / "run", name="x", config=CONFIG)
    (run / "checkpoints" / "step-00000004.pt").write_bytes(GOOD)
    with pytest.raises(
        CheckpointError, match=r"its name is that of another outer step: it was saved at 3; there is no"
    ):
        open_checkpoint(run)
    (run / "checkpoints" / "step-00000004.pt").rename(run / "checkpoints" / "mine.pt")
    assert open_checkpoint(run / "checkpoints" / "mine.pt").step == 3


@pytest.mark.parametrize("name", ["a weight that is NaN", "a run too many", "short moments", "written by zipfile"])
def test_each_command_reports_a_hostile_checkpoint_in_one_line(name: str, cli: Cli, trained: str) -> None:
    """`maml eval` needs no moments."""
    run = Path(trained)
    contents = checkpoint.decode((run / "checkpoints" / "step-00000012.pt").read_bytes())
    shutil.rmtree(run / "checkpoints")
    (run / "checkpoints").mkdir()
    file = run / "checkpoints" / "step-00000012.pt"
    weights = contents["meta_params"]["params"]["head.w"]
    data = {
        "a weight that is NaN": lambda: checkpoint.encode(
            replaced(contents, ("meta_params", "params", "head.w"), weights * float("nan"))
        ),
        "a run too many": lambda: checkpoint.encode(
            replaced(contents, ("meta_params", "params", "head.w"), torch.cat([weights, weights]))
        ),
        "short moments": lambda: checkpoint.encode(
            replaced(contents, ("optimizers", "params", "head.w", "exp_avg"), torch.ones(1, 3))
        ),
        "written by zipfile": lambda: sealed(_zip()),
    }[name]()
    file.write_bytes(data)
    (run / "checkpoints" / "SHA256SUMS").write_text(f"{checkpoint.digest(data)}  {file.name}\n")
    commands = [["train", "--resume", run, "-q"], ["eval", "--checkpoint", run], ["compare", run, run]]
    for command in commands[: 1 if name == "short moments" else None]:
        result = cli(*command)
        assert (result.code, result.out) == (4, "")
        assert result.err.startswith(f"{file}: ") and result.err.count("\n") == 1 and ";" in result.err


@pytest.mark.parametrize("name", ["one large member", "small members", "values", "tensors", "a wide config"])
def test_large_and_small_files_cost_no_more_than_their_size(name: str, tmp_path: Path) -> None:
    """At most 2 seconds of CPU, and memory of Python of twice the size of the file and 50 MB."""
    wide = {"hidden": [8192] * 16, "num_context": 8192}
    model = CONTENTS["config"]["model"] | wide
    data = {
        "one large member": lambda: archive.pack([Member("archive/data.pkl", bytes(2**25))]),
        "small members": lambda: archive.pack([Member("a", b"")] * 60_000),
        "values": lambda: with_pickle(GOOD, b"\x80\x02](" + b"N" * (tensor_pickle.MAX_BYTES - 5) + b"e."),
        "tensors": lambda: checkpoint.encode({"x": [torch.zeros(1)] * 1500}),
        "a wide config": lambda: checkpoint.encode(_with("config/model", model)),
    }[name]()
    tracemalloc.start()
    started = time.process_time()
    with pytest.raises(CheckpointError):
        _open(data, tmp_path)
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 2 * 10 and peak < 2 * len(data) + 50e6  # tracing allocations makes it slower


def test_a_file_beyond_the_size_limit_is_refused_unread(tmp_path: Path) -> None:
    with (tmp_path / "x.pt").open("wb") as stream:
        stream.truncate(checkpoint.MAX_BYTES + 1)
    with pytest.raises(FileError, match=r"x\.pt: larger than 268 MB, the limit for a file of its kind"):
        open_checkpoint(tmp_path / "x.pt")


def test_a_config_whose_checkpoints_could_not_be_read_is_invalid() -> None:
    """1-8192-8192-8192-1 has 2 * 8192^2 + 5 * 8192 + 1 parameters, of 12 bytes with the moments of Adam."""
    with pytest.raises(ConfigError, match=r"model.hidden makes checkpoints of 1,536.5 MiB, more than 240 MiB; try"):
        from_dict({"model": {"hidden": [8192] * 3}}, label="config")


def test_the_largest_contents_fit_the_limits_of_the_format() -> None:
    """16 hidden layers, everything learned with Adam, 1024 seeds with weight noise, at their largest seed."""
    config = Config.model_validate(
        {
            "model": {"hidden": [1] * 16, "num_context": 1},
            "inner": {"curvature": "kronecker", "alpha": {"learned": True, "per": "parameter"}},
            "outer": {"weight_noise": 0.1, "tasks_per_step": 1},
            "run": {"seeds": [2**63 - 1 - number for number in range(1024)]},
        }
    )
    experiment = build_experiment(config)
    assert sum(map(len, experiment.template)) > 100
    contents = snapshot(config, init_state(config, experiment))
    for group in contents["optimizers"].values():
        for key in group:
            group[key] = {name: torch.ones(()) for name in ("step", "exp_avg", "exp_avg_sq")}
    data = checkpoint.encode(contents)
    assert len(members(data)[0].content) < tensor_pickle.MAX_BYTES / 2
    assert checkpoint.decode(data)["step"] == 0


@pytest.mark.parametrize("optimizer", OUTER_OPTIMIZERS)
def test_each_outer_optimiser_is_restored_to_the_same_bytes(optimizer: str) -> None:
    """Alpha has another optimiser than the parameters; two seeds, of which one may have diverged, with weight noise."""
    alpha = {"learned": True, "per": "layer", "optimizer": "adam" if optimizer == "sgd" else "sgd"}
    changes = {"inner": CONFIG.inner.model_dump() | {"alpha": alpha}, "outer": CONFIG.outer.model_dump()}
    changes["outer"]["optimizer"] = optimizer
    config = Config.model_validate(CONFIG.model_dump() | changes)
    experiment = build_experiment(config)
    engine, state = make_engine("reference", config, experiment), init_state(config, experiment)
    engine(state, 3)
    saved = checkpoint.decode(checkpoint.encode(snapshot(config, state)))
    engine(state, 3)
    resumed = restore_state(config, experiment, saved)
    engine(resumed, 3)
    assert checkpoint.encode(snapshot(config, resumed)) == checkpoint.encode(snapshot(config, state))
