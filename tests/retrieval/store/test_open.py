import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from regraft.errors import StoreError
from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.memory import MemoryStore
from regraft.retrieval.store.open import open_gallery


def test_each_scheme_opens_its_store(tmp_path: Path) -> None:
    assert isinstance(open_gallery("memory://"), MemoryStore)
    for uri in (tmp_path / "g", str(tmp_path / "g"), f"lance://{tmp_path / 'g'}"):
        store = open_gallery(uri)
        assert isinstance(store, LanceStore)
        assert store.path == tmp_path / "g"
    open_gallery(f"lance://{tmp_path / 'g'}").put(["a"], np.ones((1, 2), np.float32), space="model")
    assert open_gallery(tmp_path / "g").count() == 1


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("s3://bucket/gallery", "'s3'; expected a plain path or one of lance://, memory://"),
        ("memory://here", "expected memory:// without 'here'"),
        ("lance://", "path is empty"),
        ("", "path is empty"),
    ],
)
def test_other_places_are_refused(uri: str, words: str) -> None:
    with pytest.raises(StoreError, match=words):
        open_gallery(uri)


def test_lancedb_is_imported_only_when_opened() -> None:
    program = """
import sys
from regraft.retrieval.store.open import open_gallery
open_gallery("memory://")
print([name for name in ("lancedb", "pyarrow", "torch") if name in sys.modules])
open_gallery("gallery")
print("lancedb" in sys.modules)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert ran.stdout == "[]\nTrue\n"
