"""Pickles that were published: plain data comes out, and nothing in them is run."""

import builtins
import os
import pickle
import struct
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from regraft.errors import TableError
from regraft.vision import released_pickles
from regraft.vision.released_pickles import load_plain

PLAIN = (3, [{"params": [None, (1, 2), True, [(0, 0.5)], -7, 2**80], "prob": ([0.5, 1e-9], [4, 2])}], "é")


class Calls:
    """Pickles as a call of a function, and perhaps a change of what that returns."""

    def __init__(self, *reduced: Any) -> None:
        self.reduced = reduced

    def __reduce__(self) -> tuple[Any, ...]:
        return self.reduced


@pytest.mark.parametrize("protocol", [3, 4, 5])
def test_plain_data_comes_out(protocol: int, tmp_path: Path) -> None:
    file = tmp_path / "0.pth.tar"
    file.write_bytes(pickle.dumps(PLAIN, protocol))
    assert load_plain(file) == PLAIN
    for is_archive in (True, False):
        torch.save(PLAIN, file, pickle_protocol=protocol, _use_new_zipfile_serialization=is_archive)
        assert load_plain(file) == PLAIN


@pytest.mark.parametrize("kind", ["?", "i1", "<i2", ">i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", ">f8"])
def test_numbers_of_numpy_become_those_of_python(kind: str, tmp_path: Path) -> None:
    file = tmp_path / "0.pth.tar"
    number = np.array([1.0]).astype(kind)[0]
    file.write_bytes(pickle.dumps([number, number], 4))
    got = load_plain(file)
    assert got == [number, number]
    assert isinstance(got, list)
    assert type(got[0]) is type(number.item())
    file.write_bytes(pickle.dumps(number, 3).replace(b"numpy._core", b"numpy.core"))  # before NumPy 2
    assert load_plain(file) == number


def touch(path: Path) -> str:
    return f"touch {path}"


def code(path: Path) -> str:
    return f"__import__('pathlib').Path({str(path)!r}).touch()"


def inst(path: Path) -> bytes:
    """The oldest way to make an object: by name and arguments at once."""
    return f"(S'{touch(path)}'\nios\nsystem\n.".encode()


def hidden(path: Path) -> bytes:
    """A call in the middle of plain data."""
    record = {"params": [None, Calls(os.system, (touch(path),))], "prob": ([0.5], [1])}
    return pickle.dumps((0, [record]), 4)


BAD = {
    "a command": lambda path: pickle.dumps(Calls(os.system, (touch(path),)), 4),
    "a command, by the oldest way": inst,
    "a command among data": hidden,
    "code": lambda path: pickle.dumps(Calls(builtins.eval, (code(path),)), 4),
    "code, in several pickles": lambda path: (
        pickle.dumps(0x1950A86A20F9469CFC6C, 4) + pickle.dumps(Calls(builtins.exec, (code(path),)), 4)
    ),
    "a method": lambda path: pickle.dumps(Calls(path.touch, ()), 4),
}


@pytest.mark.parametrize("name", BAD)
def test_nothing_is_run(name: str, tmp_path: Path) -> None:
    ran, file = tmp_path / "ran", tmp_path / "0.pth.tar"
    file.write_bytes(BAD[name](ran))
    with pytest.raises(TableError, match=r"0\.pth\.tar asks for .*Nothing was run"):
        load_plain(file)
    assert not ran.exists()
    # It is what it seems to be: an ordinary reader runs it.
    with file.open("rb") as stream:
        while not ran.exists():
            pickle.load(stream)


@pytest.mark.parametrize(
    ("content", "refused"),
    [
        (Calls(os.system, ("true",)), "system"),
        (OrderedDict(a=1), "collections.OrderedDict"),
        (np.arange(3), "_reconstruct"),
        (1j, "builtins.complex"),
        (Calls(np._core.multiarray.scalar, (np.dtype("O"), b"x")), r"numpy.dtype\('O8'\)"),
        (np.datetime64(3, "s"), r"numpy.dtype\('M8'\)"),
        (np.str_("word"), "numpy.dtype"),
        (np.dtype([("a", "i4")]), r"numpy.dtype\('V4'\)"),
        (
            Calls(np.dtype, ("f8", False, True), (3, "<", ("f8", 2), None, None, -1, -1, 0)),
            "a numpy.dtype of",
        ),
        (Calls(np.dtype, ("f8", False, True), (3, "x", None, None, None, -1, -1, 0)), "a numpy.dtype of"),
        (Calls(np.dtype, ("f8", False, True), {"format": "<q"}), "is no whole pickle"),
        (Calls(np._core.multiarray.scalar, (np.dtype("f8"), b"short")), "is no whole pickle"),
        (Calls(np._core.multiarray.scalar, ("{}", b"12345678")), "is no whole pickle"),
    ],
)
def test_only_numbers_are_known(content: object, refused: str, tmp_path: Path) -> None:
    file = tmp_path / "0.pth.tar"
    file.write_bytes(pickle.dumps(content, 4))
    with pytest.raises(TableError, match=refused):
        load_plain(file)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        # Changes of what numbers are made by, in the hope that others are then made by it.
        (b"cnumpy.core.multiarray\nscalar\n}(S'__new__'\nI1\nub.", "is no whole pickle"),
        (b"cnumpy.core.multiarray\nscalar\n(N}(S'__new__'\nI1\nutb.", "is no whole pickle"),
        (b"cnumpy\ndtype\n}(S'__init__'\nI1\nub.", "is no whole pickle"),
        (b"\x80\x04\x8c\x05numpy\x8c\x0edtype.__init__\x93.", r"asks for numpy\.dtype\.__init__"),
        (b"Pa tensor\n.", "asks for the stored object 'a tensor'"),
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**62) + b".", "is no whole pickle"),
        (b"", "is no whole pickle: Ran out of input"),
        (b"\x80\x04K", "is no whole pickle"),
        (b"PK\x03\x04", "is no whole pickle"),
        (b"<html>", "is no whole pickle"),
    ],
)
def test_what_is_no_pickle_of_data_is_refused(data: bytes, message: str, tmp_path: Path) -> None:
    file = tmp_path / "0.pth.tar"
    file.write_bytes(data)
    with pytest.raises(TableError, match=message):
        load_plain(file)
    file.write_bytes(pickle.dumps(np.float64(0.5), 4))
    assert load_plain(file) == 0.5


def test_tensors_are_refused(tmp_path: Path) -> None:
    for is_archive in (True, False):
        torch.save(torch.ones(2), tmp_path / "0.pth.tar", _use_new_zipfile_serialization=is_archive)
        with pytest.raises(TableError, match=r"asks for torch\._utils\._rebuild"):
            load_plain(tmp_path / "0.pth.tar")


def test_large_files_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also those that are small while they are packed."""
    import zipfile

    monkeypatch.setattr(released_pickles, "LARGEST_BYTES", 1000)
    file = tmp_path / "0.pth.tar"
    file.write_bytes(pickle.dumps([0] * 2000))
    with pytest.raises(TableError, match="more than 1,000 bytes"):
        load_plain(file)
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("archive/data.pkl", pickle.dumps([0] * 2000))
    assert file.stat().st_size < 1000
    with pytest.raises(TableError, match="more than 1,000 bytes"):
        load_plain(file)


def test_a_torn_file_is_refused_wherever_it_is_torn(tmp_path: Path) -> None:
    file = tmp_path / "0.pth.tar"
    for is_archive in (True, False):
        torch.save(PLAIN, file, pickle_protocol=4, _use_new_zipfile_serialization=is_archive)
        whole = file.read_bytes()
        # The last two bytes of the older form, an empty list of tensors, are not read.
        for length in range(0, len(whole) - (0 if is_archive else 20), 7):
            file.write_bytes(whole[:length])
            with pytest.raises(TableError, match="is no whole pickle"):
                load_plain(file)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(TableError, match="No such file"):
        load_plain(tmp_path / "0.pth.tar")
