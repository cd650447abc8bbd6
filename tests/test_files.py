"""Atomic writing: the old file or the new one, never half of either."""

import os
import pickle
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from regraft.errors import PlaceError, RegraftError
from regraft.files import check_folder_place, check_place, replacing


def test_a_file_is_replaced_whole(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "file.txt"
    with replacing(path) as temporary:
        temporary.write_text("new")
        assert not path.exists()
    assert path.read_text() == "new"
    assert [entry.name for entry in path.parent.iterdir()] == ["file.txt"]


def test_a_folder_can_be_made(tmp_path: Path) -> None:
    with replacing(tmp_path / "folder") as temporary:
        temporary.mkdir()
        (temporary / "inside").write_text("x")
    assert (tmp_path / "folder" / "inside").read_text() == "x"


def test_a_failure_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fail_half_way() -> None:
        with replacing(path) as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_half_way()
    assert path.read_text() == "old"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file.txt"]


def test_a_killed_process_leaves_the_old_one(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")
    script = (
        "import os, signal, sys\nfrom pathlib import Path\nfrom regraft.files import replacing\n"
        "with replacing(Path(sys.argv[1])) as temporary:\n"
        "    temporary.write_text('half')\n    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", script, path], check=False)
    assert done.returncode == -signal.SIGKILL
    assert path.read_text() == "old"


def test_others_may_read_what_a_library_made_private(tmp_path: Path) -> None:
    (tmp_path / "plain").touch()
    with replacing(tmp_path / "file") as temporary:
        temporary.touch(mode=0o600)
    assert (tmp_path / "file").stat().st_mode == (tmp_path / "plain").stat().st_mode


def refused(path: Path, reason: str) -> None:
    """`path` is refused, before any work by both, and what is around it stays."""
    with pytest.raises(PlaceError, match=reason):
        check_place(path)
    with pytest.raises(PlaceError, match=reason), replacing(path):
        pytest.fail("refused too late")


def test_a_folder_is_no_place_for_a_file(tmp_path: Path) -> None:
    refused(tmp_path, "is a folder; expected the name of a file")
    refused(Path(), "is a folder")
    assert list(tmp_path.iterdir()) == []


def test_a_file_is_no_folder(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "nowhere").symlink_to(tmp_path / "missing")
    refused(tmp_path / "file" / "out.txt", "out.txt cannot be written: .*file is not a folder")
    refused(tmp_path / "file" / "deep" / "out.txt", "file is not a folder")
    refused(tmp_path / "nowhere" / "out.txt", "nowhere is not a folder")
    with pytest.raises(PlaceError, match="is a file; expected a folder or a free name"):
        check_folder_place(tmp_path / "file")
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs named pipes")
def test_a_pipe_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    refused(tmp_path / "pipe", "is a device or a pipe")
    assert (tmp_path / "pipe").is_fifo()


def test_a_name_too_long_for_the_disk(tmp_path: Path) -> None:
    refused(tmp_path / ("x" * 300), "File name too long")


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs Linux")
@pytest.mark.parametrize("path", ["/proc/out.txt", "/proc/deep/out.txt"])
def test_a_folder_that_takes_no_files(path: str) -> None:
    refused(Path(path), "/proc does not take it")


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="an administrator may write")
def test_a_folder_without_permission(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    refused(tmp_path / "out.txt", "Permission denied")
    tmp_path.chmod(0o700)


def test_a_check_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    (tmp_path / "folder").mkdir()
    for name in ("file", "new", "deep/new"):
        check_place(tmp_path / name)
    for name in ("folder", "new", "deep/new"):
        check_folder_place(tmp_path / name)
    assert {entry.name for entry in tmp_path.iterdir()} == {"file", "folder"}
    assert list((tmp_path / "folder").iterdir()) == []


def test_a_folder_made_meanwhile_is_no_bug(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"

    def be_late() -> None:
        with replacing(path) as temporary:
            temporary.write_text("new")
            path.mkdir()

    with pytest.raises(PlaceError, match=r"out\.txt cannot be written"):
        be_late()
    assert list(tmp_path.iterdir()) == [path]


def test_what_the_block_raises_stays_what_it_is(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught, replacing(tmp_path / "out.txt"):
        (tmp_path / "missing").read_text()
    assert not isinstance(caught.value, RegraftError)


def test_the_error_speaks_as_ours_and_is_the_builtin() -> None:
    error = PlaceError("Nowhere.", hint="Go elsewhere.")
    assert isinstance(error, OSError)
    assert str(error) == str(pickle.loads(pickle.dumps(error))) == "Nowhere.\n  hint: Go elsewhere."
