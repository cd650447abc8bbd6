"""Files of labels that cannot be read."""

from pathlib import Path

import pytest

from regraft.errors import SampleError
from regraft.recipes.labels import read_labels


def test_a_file_that_is_not_text_is_named(tmp_path: Path) -> None:
    file = tmp_path / "labels.csv"
    file.write_bytes(b"id,label\n\xff\xfe,a\n")
    with pytest.raises(SampleError, match=r"labels\.csv is not a CSV file in UTF-8"):
        read_labels(file)
