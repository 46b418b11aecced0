from __future__ import annotations

import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

from scdrugmap.errors import WeightsInvalid
from scdrugmap.models.checkpoints.unpickle import read_dictionary


def write(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


class Runs:
    """Asks the unpickler to call something."""

    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_and_numpy_scalars_become_python_numbers(tmp_path, protocol):
    ids = {"<pad>": 0, "a": np.int16(-7), "b": np.int64(2**40), "c": np.uint8(200), "d": np.dtype(">i4").type(5)}
    path = write(tmp_path / "ids.pkl", pickle.dumps(ids, protocol))
    read = read_dictionary(path, int)
    assert read == {"<pad>": 0, "a": -7, "b": 2**40, "c": 200, "d": 5}
    assert {type(value) for value in read.values()} == {int}
    medians = {"a": np.float64(0.1), "b": 2.5, "c": np.float32(0.5), "d": 3}
    read = read_dictionary(write(tmp_path / "medians.pkl", pickle.dumps(medians, protocol)), float)
    assert read == {"a": 0.1, "b": 2.5, "c": 0.5, "d": 3.0}
    assert {type(value) for value in read.values()} == {float}


def test_both_names_of_numpys_scalar_are_read(tmp_path):
    new = pickle.dumps({"a": np.int16(9)}, 4)
    assert b"numpy._core.multiarray" in new
    old = pickle.dumps({"a": np.int16(9)}, 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert read_dictionary(write(tmp_path / "new.pkl", new), int) == {"a": 9}
    with pytest.raises(WeightsInvalid, match=r"_codecs\.encode"):  # how protocol 2 writes bytes; no published file does
        read_dictionary(write(tmp_path / "old.pkl", old), int)
    old = pickle.dumps({"a": np.int16(9)}, 3).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
    assert read_dictionary(write(tmp_path / "older.pkl", old), int) == {"a": 9}


def test_big_endian_scalars_keep_their_value(tmp_path):
    data = pickle.dumps({"a": np.int16(258)}, 4)
    swapped = data.replace(b"\x8c\x01<", b"\x8c\x01>").replace(struct.pack("<h", 258), struct.pack(">h", 258))
    assert swapped != data
    assert read_dictionary(write(tmp_path / "big.pkl", swapped), int) == {"a": 258}


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("value", [lambda key: key, lambda key: {"a": key}, lambda key: {key: 1}])
def test_nothing_that_a_pickle_asks_for_is_run(tmp_path, protocol, value):
    touched = tmp_path / "ran"
    data = pickle.dumps(value(Runs(Path.touch, touched)), protocol)
    with pytest.raises(WeightsInvalid, match=r"evil\.pkl' asks for .* nothing of it ran"):
        read_dictionary(write(tmp_path / "evil.pkl", data), int)
    assert not touched.exists()


@pytest.mark.parametrize(
    "data",
    [
        b"cos\nsystem\n(S'touch ran'\ntR.",
        b"\x80\x04\x8c\x08builtins\x8c\x04eval\x93\x8c\x011\x85R.",
        b"\x80\x04\x8c\x05numpy\x8c\x10f2py.capi_maps.x\x93.",
        b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93\x8c\x01O\x89\x88\x87R.",  # an object dtype
        b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93}\x8c\x01a\x8c\x01bs\x86b.",  # BUILD on a stand-in
        b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93N}\x8c\x08__call__\x8c\x01bs\x86b.",  # BUILD with slots
        b"\x80\x04\x8c\x05numpy\x8c\x05dtype\x93)\x81.",  # NEWOBJ
        b"\x80\x02}r\xff\xff\xff\x7f.",  # a memo index of two thousand million
        b"\x80\x04\x82\x01.",  # an extension code
        b"\x80\x04\x8c\x01a\x51.",  # a persistent id
    ],
)
def test_crafted_pickles_are_refused(tmp_path, data):
    with pytest.raises(WeightsInvalid, match=r"evil\.pkl'"):
        read_dictionary(write(tmp_path / "evil.pkl", data), int)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([1, 2], "holds a list"),
        ({}, "holds a dict"),
        ({1: 1}, "from int to int"),
        ({"a": "b"}, "from str to str"),
        ({"a": 1.5}, "from str to float"),
        ({"a": True}, "from str to bool"),
        ({"a": None}, "from str to NoneType"),
        ({"a": {"b": 1}}, "from str to dict"),
    ],
)
def test_what_is_no_flat_dictionary_of_the_kind_is_refused(tmp_path, content, says):
    with pytest.raises(WeightsInvalid, match=says):
        read_dictionary(write(tmp_path / "odd.pkl", pickle.dumps(content)), int)


def test_a_file_cut_short_anywhere_is_refused(tmp_path):
    data = pickle.dumps({"a": np.int16(9), "bb": 70_000, "c": np.int64(5)}, 4)
    for end in range(len(data)):
        with pytest.raises(WeightsInvalid):
            read_dictionary(write(tmp_path / "short.pkl", data[:end]), int)


def test_a_missing_file_is_named(tmp_path):
    with pytest.raises(WeightsInvalid, match="absent"):
        read_dictionary(tmp_path / "absent.pkl", int)
