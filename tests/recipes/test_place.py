"""Places that cannot hold a gallery and its files are refused in words that help."""

from pathlib import Path

import pytest

from regraft.errors import StoreError
from regraft.recipes.place import place_of


@pytest.mark.parametrize(
    ("gallery", "message"),
    [
        ("foo://x", "No gallery has the scheme 'foo'"),
        ("memory://", "does not outlive the process"),
        ("qdrant://folder", "^qdrant://folder has no folder for model files"),
        (
            "postgresql://me:s3@cr:et@host/base?gallery=g",
            r"^postgresql://me@host/base\?gallery=g has no folder",
        ),
        ("postgresql://host/base", "^postgresql://host/base has no folder"),
    ],
)
def test_what_is_wrong_with_a_place_is_said(gallery: str, message: str) -> None:
    with pytest.raises(StoreError, match=message):
        place_of(gallery)


def test_a_place_that_outlives_nothing_is_refused_with_a_workspace_too(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="does not outlive the process"):
        place_of("memory://", tmp_path)
