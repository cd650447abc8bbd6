"""Which logit belongs to which class."""

import pytest

from regraft.errors import SampleError
from regraft.recipes.classes import match_classes

LABELS = ("crane", "dog", "crane", "eel", "fox")


def test_by_name_in_the_pictures_order():
    match = match_classes(("fox", "dog", "eel"), LABELS, 5)
    assert match.columns == (4, 1, 3)
    assert match.is_slice
    assert not match.by_number
    assert not match_classes(("b", "a"), ("a", "b"), 2).is_slice


@pytest.mark.parametrize("labels", [(), LABELS])
def test_by_number(labels: tuple[str, ...]):
    match = match_classes(("0", "2", "4"), labels, 5)
    assert match.columns == (0, 2, 4)
    assert match.by_number
    assert match.is_slice
    assert not match_classes([str(number) for number in range(5)], labels, 5).is_slice


def test_names_that_are_numbers_are_names():
    match = match_classes(("1", "2"), ("2", "1", "0"), 3)
    assert match.columns == (1, 0)
    assert not match.by_number


@pytest.mark.parametrize(
    ("classes", "labels", "message"),
    [
        (("dog", "foxx", "owl"), LABELS, r"does not know 2 of the 3 classes: foxx, owl.*\n.*mean 'fox'"),
        (("dog", "crane"), LABELS, "has 2 classes called 'crane'"),
        (("dog", "1"), LABELS, "does not know 1 of the 2 classes: 1"),
        (("0", "5"), LABELS, "does not know 2 of the 2 classes: 0, 5"),
        (("0", "5"), (), "does not name its 5 classes, so 0, 5 cannot be found"),
        (("0", "-1"), (), "does not name"),
        (("0", "²"), (), "does not name"),
        (("1", "01"), (), "2 classes of the pictures are all number 1"),
        (("dog",), LABELS, "expected at least two"),
    ],
)
def test_what_cannot_be_found(classes: tuple[str, ...], labels: tuple[str, ...], message: str):
    with pytest.raises(SampleError, match=message):
        match_classes(classes, labels, 5)
