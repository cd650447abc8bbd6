"""Published pickles, read without running what they ask for.

A pickle is a program, and whoever wrote it says what is called. Here it may call stand-ins for the two things
that make a number of NumPy; all other names are refused. So a published file, whoever changed it on the way,
is plain data or an error. One that is made to exhaust memory may do so still: only its size is bounded.
"""

import io
import pickle
import struct
import zipfile
from pathlib import Path
from typing import final

from regraft.errors import TableError

LARGEST_BYTES = 2**26
"""Of a file, and of the pickle in it: a thousand times those of ImageNet+."""

_FORMATS = dict(
    zip(("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8"), "?bhiqBHIQefd", strict=True)
)
"""How `struct` spells the numbers of NumPy."""
_ORDERS = {"<": "<", ">": ">", "|": "<", "=": "<"}

# Before it wrote archives, torch.save wrote several pickles in a row: this number, a version, the sizes of
# types, and then what was saved.
_FIRST_OF_SEVERAL = 0x1950A86A20F9469CFC6C
_ARCHIVE = b"PK\x03\x04"


def load_plain(path: Path) -> object:
    """What a pickle holds: numbers, text, bytes, `None`, and lists, tuples, sets and mappings of those.

    Args:
        path: A plain pickle, or what `torch.save` makes of one, as an archive or in its older form. Numbers
            of NumPy become those of Python.

    Raises:
        TableError: It asks for anything else, or is too large, torn, or no pickle.
    """
    try:
        return _load(io.BytesIO(_pickle_in(path)))
    except TableError:
        raise
    except _Refused as error:
        raise TableError(
            f"{path} asks for {error}, which plain data has no need of; expected numbers, text, lists and "
            "mappings. Nothing was run.",
            hint="Do not open it with pickle or torch.load. Get it again from its publisher.",
        ) from error
    # A malformed pickle raises whatever it drives the reader to, like a malformed picture.
    except Exception as error:
        reason = str(error) or type(error).__name__
        raise TableError(
            f"{path} is no whole pickle: {reason.rstrip('.')}.", hint="Unpack it again from its archive."
        ) from error


def _load(stream: io.BytesIO) -> object:
    value = _Plain(stream).load()
    if value != _FIRST_OF_SEVERAL:
        return value
    for _ in ("version", "sizes of types"):
        _Plain(stream).load()
    return _Plain(stream).load()


def _pickle_in(path: Path) -> bytes:
    with path.open("rb") as file:
        data = _limited(file.read(LARGEST_BYTES + 1), path)
    if not data.startswith(_ARCHIVE):
        return data
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        names = [name for name in archive.namelist() if name.endswith("/data.pkl")]
        if len(names) != 1:
            raise ValueError(f"the archive holds {len(names)} files data.pkl, expected one")
        with archive.open(names[0]) as file:
            return _limited(file.read(LARGEST_BYTES + 1), path)


def _limited(data: bytes, path: Path) -> bytes:
    if len(data) > LARGEST_BYTES:
        raise TableError(
            f"{path} holds more than {LARGEST_BYTES:,} bytes, expected the records of a picture."
        )
    return data


class _Refused(pickle.UnpicklingError):
    """Something that plain data has no need of."""


@final
class _Plain(pickle.Unpickler):
    """Knows numbers of NumPy, and nothing else by name."""

    def find_class(self, module: str, name: str, /) -> type:
        """The stand-in for what a pickle names."""
        found = _KNOWN.get((module, name))
        if found is None:
            raise _Refused(f"{module}.{name}")
        return found

    def persistent_load(self, pid: object, /) -> object:
        """Nothing: tensors, which `torch.save` keeps beside a pickle, have no place in a record."""
        raise _Refused(f"the stored object {pid!r:.60}")


@final
class _NumberType:
    """Stands for a type of number of NumPy. A pickle tells its name first, and its order of bytes later."""

    __slots__ = ("format",)

    def __init__(self, name: str, *_: object) -> None:
        if name not in _FORMATS:
            raise _Refused(f"numpy.dtype({name!r:.60})")
        self.format = "<" + _FORMATS[name]

    def __setstate__(self, state: tuple[object, ...]) -> None:
        # The version, the order of bytes, and what only a type with parts has.
        _, order, *parts = state
        if order not in _ORDERS or parts[:3] != [None, None, None]:
            raise _Refused(f"a numpy.dtype of {state!r:.60}")
        self.format = _ORDERS[str(order)] + self.format[1:]


@final
class _Scalar:
    """Stands for what makes a number of NumPy out of its type and its bytes: makes one of Python."""

    def __new__(cls, kind: _NumberType, data: bytes) -> int | float | bool:  # pyright: ignore
        return struct.unpack(kind.format, data)[0]

    def __setstate__(self, state: object) -> None:
        raise _Refused("a change of numpy.scalar")


_KNOWN: dict[tuple[str, str], type] = {
    ("numpy", "dtype"): _NumberType,
    ("numpy.core.multiarray", "scalar"): _Scalar,
    ("numpy._core.multiarray", "scalar"): _Scalar,
}
