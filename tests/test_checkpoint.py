"""The bytes of checkpoints: equal for equal contents, verified, and safe to load."""

import io
import os
import pickle
import random
import zipfile
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from maml_cli.config import Config, to_dict
from maml_cli.errors import CheckpointError
from maml_cli.experiment import build_experiment
from maml_cli.runs import checkpoint, open_checkpoint
from maml_cli.training import init_state, snapshot

CONFIG = Config.model_validate({"model": {"hidden": [3]}, "inner": {"alpha": {"learned": True}}})


def _contents() -> dict[str, Any]:
    return snapshot(CONFIG, init_state(CONFIG, build_experiment(CONFIG)))


FLOATS = st.floats(allow_nan=False)
TENSORS = st.builds(
    lambda values, dtype: torch.tensor(values, dtype=torch.float64).to(dtype),
    st.lists(st.floats(0, 255), max_size=5),
    st.sampled_from([torch.float32, torch.float64, torch.int64, torch.uint8]),
)
PLAIN = st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | FLOATS | st.text(max_size=5)
VALUES = st.recursive(
    PLAIN | TENSORS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


def _same(actual: Any, expected: Any) -> bool:
    """Equal in type and value, tensors in dtype and bytes as well."""
    if type(actual) is not type(expected):
        return False
    if isinstance(expected, torch.Tensor):
        return actual.dtype == expected.dtype and torch.equal(actual, expected)
    if isinstance(expected, dict):
        return list(actual) == list(expected) and all(_same(actual[key], value) for key, value in expected.items())
    if isinstance(expected, list):
        return len(actual) == len(expected) and all(map(_same, actual, expected))
    return bool(actual == expected)


@settings(max_examples=60)
@given(st.dictionaries(st.text(min_size=1, max_size=5), VALUES, max_size=4))
def test_any_nested_contents_are_decoded_as_they_were_encoded(contents: dict[str, Any]) -> None:
    contents.pop("schema_version", None)
    data = checkpoint.encode(contents)
    decoded = checkpoint.decode(data, sha256=checkpoint.digest(data))
    assert decoded.pop("schema_version") == checkpoint.CHECKPOINT_SCHEMA_VERSION
    assert _same(decoded, contents)
    assert checkpoint.encode(decoded) == data
    by_torch = torch.load(io.BytesIO(data), weights_only=True)
    assert _same(by_torch, decoded | {"schema_version": checkpoint.CHECKPOINT_SCHEMA_VERSION})


def test_equal_contents_have_equal_bytes_with_and_without_shared_objects() -> None:
    first, second = "".join(["a", "b"]), "".join(["a", "b"])
    assert first is not second
    shared = checkpoint.encode({"x": [first, first], "y": [1.5, {"k": torch.arange(6)[::2]}]})
    assert shared == checkpoint.encode({"x": [first, second], "y": [1.5, {"k": torch.tensor([0, 2, 4])}]})
    tensor = torch.ones(3)
    assert checkpoint.encode({"x": tensor, "y": tensor}) == checkpoint.encode({"x": tensor, "y": tensor.clone()})


@pytest.mark.parametrize(
    "value",
    [
        Path(),
        (1, 2),
        {1: 2},
        1j,
        torch.ones(2, dtype=torch.int32),
        torch.ones(2).to_sparse(),
        {"a": {"b": Path("step")}},
    ],
    ids=repr,
)
def test_values_other_than_tensors_and_plain_ones_cannot_be_encoded(value: Any) -> None:
    with pytest.raises(TypeError, match=r"a checkpoint cannot hold"):
        checkpoint.encode({"x": value})


def test_integers_of_more_than_64_bits_cannot_be_encoded() -> None:
    for value in (2**63, -(2**63) - 1, 10**400):
        with pytest.raises(OverflowError, match="64 bits"):
            checkpoint.encode({"x": value})


def test_a_checkpoint_is_an_archive_that_zip_tools_verify() -> None:
    with zipfile.ZipFile(io.BytesIO(checkpoint.encode(_contents()))) as archive:
        assert archive.testzip() is None
        assert archive.comment.decode() == checkpoint.digest(checkpoint.encode(_contents())[:-64])
        assert archive.namelist()[:4] == ["archive/data.pkl", "archive/byteorder", "archive/version", "archive/data/0"]


def test_each_flipped_bit_of_a_lone_file_is_reported() -> None:
    """Its own digest covers the file, headers of the archive included."""
    good = checkpoint.encode(_contents())
    for bit in [*random.Random(1).sample(range(8 * len(good)), 300), *range(8 * len(good) - 8 * 200, 8 * len(good))]:
        data = bytearray(good)
        data[bit // 8] ^= 1 << bit % 8
        with pytest.raises(CheckpointError, match="damaged"):
            checkpoint.decode(bytes(data))


@pytest.mark.parametrize(
    ("version", "message"), [(99, r"a newer maml \(schema 99, this one reads 2\); upgrade"), (1, "another maml")]
)
def test_a_checkpoint_of_another_schema_is_refused_and_a_newer_one_asks_to_upgrade(
    version: int, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr(checkpoint, "CHECKPOINT_SCHEMA_VERSION", version)
        data = checkpoint.encode(_contents())
    with pytest.raises(CheckpointError, match=f"written by {message}"):
        checkpoint.decode(data)


class Evil:
    def __reduce__(self) -> Any:
        return (os.system, ("touch pwned",))


@pytest.mark.parametrize("kind", ["torch pickle", "foreign tensors", "foreign zip", "text"])
def test_foreign_files_are_refused_and_nothing_in_them_runs(
    kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    file = tmp_path / "x.pt"
    if kind == "torch pickle":
        torch.save({"schema_version": 1, "x": Evil()}, file, pickle_module=pickle)
    elif kind == "foreign tensors":
        torch.save({"weight": torch.ones(3)}, file)
    elif kind == "foreign zip":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("hello.txt", "hello")
    else:
        file.write_text("not a checkpoint\n")
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        open_checkpoint(file)
    assert not (tmp_path / "pwned").exists()


def test_an_invalid_config_in_a_checkpoint_is_reported(tmp_path: Path) -> None:
    data = checkpoint.encode(_contents() | {"config": to_dict(CONFIG) | {"inner": {"steps": -1}}})
    (tmp_path / "x.pt").write_bytes(data)
    with pytest.raises(CheckpointError, match=r"invalid config: .*: inner.steps must be at least 1"):
        open_checkpoint(tmp_path / "x.pt")
