"""Flat dictionaries of strings and numbers in pickle files, read without running anything that a file asks for.

Some projects publish their gene dictionaries as pickles. This is the only module that unpickles, and its reader knows
three names, those under which NumPy scalars are pickled; each stands for an object of ours that can do nothing but
turn bytes into a Python number. Every other name is refused before it is looked up.
"""

from __future__ import annotations

import io
import pickle  # noqa: TID251 (the one restricted reader; find_class below imports nothing)
import pickletools
import struct
from pathlib import Path
from typing import Any, TypeVar

from scdrugmap.errors import WeightsInvalid

Value = TypeVar("Value", str, int, float)
# Struct codes of the NumPy scalars that a dictionary may hold, by the dtype's name.
CODES = {
    **{"b1": "?", "i1": "b", "i2": "h", "i4": "i", "i8": "q"},
    **{"u1": "B", "u2": "H", "u4": "I", "u8": "Q", "f2": "e", "f4": "f", "f8": "d"},
}


def read_dictionary(path: Path, kind: type[Value]) -> dict[str, Value]:
    """Read a pickled dictionary of strings to values of one kind (str, int or float, NumPy scalars included).

    Raises `WeightsInvalid` when the file holds anything else, is cut short, or names something that could be run.
    """
    try:
        data = path.read_bytes()
        _check_memo(data)
        content = _Reader(io.BytesIO(data), path).load()
    except (pickle.UnpicklingError, ValueError, TypeError, LookupError, AttributeError, EOFError, OSError) as error:
        raise _refused(path, f"cannot be read as a pickled dictionary ({str(error)[:160]})") from error
    if not isinstance(content, dict) or not content:
        raise _refused(path, f"holds a {type(content).__name__} where a dictionary with entries is expected")
    for key, value in content.items():
        if type(key) is not str or not _is(value, kind):
            types = f"{type(key).__name__} to {type(value).__name__}"
            raise _refused(path, f"holds an entry from {types} where str to {kind.__name__} is expected")
    return {key: kind(value) for key, value in content.items()}


class _Reader(pickle.Unpickler):
    """An unpickler that resolves the names of NumPy scalars to our stand-ins and no other name at all."""

    def __init__(self, file: io.BytesIO, path: Path) -> None:
        super().__init__(file)
        self.path = path

    def find_class(self, module: str, name: str) -> Any:
        """Give the stand-in; raises `WeightsInvalid` for any other name, without importing it."""
        if (module, name) == ("numpy", "dtype"):
            return _DtypeMaker()
        if module in ("numpy.core.multiarray", "numpy._core.multiarray") and name == "scalar":
            return _ScalarMaker()
        raise _refused(self.path, f"asks for '{module}.{name}', which a dictionary has no need of; nothing of it ran")


class _Dtype:
    """Type and byte order of a NumPy scalar; slots keep a pickle from hanging anything else on it."""

    __slots__ = ("code", "order")

    def __init__(self, name: object) -> None:
        if not isinstance(name, str) or name not in CODES:
            raise pickle.UnpicklingError(f"dtype {name!r} is not a plain number")
        self.code, self.order = CODES[name], "<"

    def __setstate__(self, state: object) -> None:
        order = state[1] if isinstance(state, tuple) and len(state) > 1 else None
        if order not in ("<", ">", "|", "="):
            raise pickle.UnpicklingError(f"byte order {order!r} is not known")
        self.order = ">" if order == ">" else "<"


class _DtypeMaker:
    __slots__ = ()

    def __call__(self, name: object, *_: object) -> _Dtype:
        return _Dtype(name)


class _ScalarMaker:
    __slots__ = ()

    def __call__(self, dtype: object, data: object) -> bool | int | float:
        if not isinstance(dtype, _Dtype) or not isinstance(data, bytes):
            raise pickle.UnpicklingError("a scalar is not made of a dtype and bytes")
        try:
            return struct.unpack(dtype.order + dtype.code, data)[0]
        except struct.error as error:
            raise pickle.UnpicklingError(f"a scalar has the wrong size: {error}") from error


def _check_memo(data: bytes) -> None:
    """Refuse a memo index beyond the file's own length: the C unpickler would reserve memory up to it."""
    for opcode, argument, _ in pickletools.genops(data):
        if opcode.name in ("PUT", "LONG_BINPUT") and int(argument or 0) > len(data):
            raise pickle.UnpicklingError(f"memo index {argument} in a file of {len(data)} bytes")


def _is(value: object, kind: type) -> bool:
    """Tell whether a value is of the kind; a whole number is a float too, a truth value is neither."""
    return type(value) is kind or (kind is float and type(value) is int)


def _refused(path: Path, what: str) -> WeightsInvalid:
    return WeightsInvalid(f"'{path}' {what}.", "Get the file again from its source; do not unpickle it yourself.")
