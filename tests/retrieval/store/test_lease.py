"""The right to write, which nobody keeps who could not begin."""

from pathlib import Path

import pytest

from regraft.errors import StoreError
from regraft.retrieval.store.lease import WriterLease


def test_who_cannot_sign_holds_nothing(tmp_path: Path) -> None:
    (tmp_path / "writer.txt").mkdir()  # as if the disk were full, but for root too
    with pytest.raises(StoreError, match=r"writer.txt cannot be written(.|\n)*hint: "):
        WriterLease(tmp_path, wait_s=0.1).held().__enter__()
    (tmp_path / "writer.txt").rmdir()
    with WriterLease(tmp_path, wait_s=0.1).held():
        pass


def test_who_waits_is_told_by_whom_as_far_as_it_is_known(tmp_path: Path) -> None:
    holder, waiting = WriterLease(tmp_path, wait_s=0.1), WriterLease(tmp_path, wait_s=0.05)
    with holder.held():
        (tmp_path / "writer.txt").write_text("")
        with pytest.raises(StoreError, match="written by another process; waited"):
            waiting.held().__enter__()
