"""Which logit of a model belongs to which class of some pictures."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from regraft.errors import SampleError, nearest

NUM_NAMED = 5


@dataclass(frozen=True, kw_only=True)
class ClassMatch:
    """Where the classes of some pictures are among the classes of a model."""

    columns: tuple[int, ...]
    """The logit of each of the pictures' classes."""
    num_labels: int
    """Classes of the model."""
    by_number: bool
    """Whether the pictures' classes are named by the numbers of logits."""

    @property
    def is_slice(self) -> bool:
        """Whether the model has classes that the pictures have not, which then cannot be answered."""
        return len(self.columns) < self.num_labels


def match_classes(classes: Sequence[str], labels: Sequence[str], num_labels: int) -> ClassMatch:
    """Find the pictures' classes by name, or by number if all are numbers of logits and none is a name.

    Args:
        classes: Of the pictures.
        labels: Of the model, in the order of its logits; none if it does not name them.
        num_labels: Logits of the model.

    Raises:
        SampleError: There is one class only, one that the model does not have, or one that it has twice.
    """
    if len(classes) < 2:
        raise SampleError(
            f"The pictures have the classes {list(classes)}; expected at least two to tell apart."
        )
    if by_number := not set(classes) & set(labels) and are_numbers(classes, num_labels):
        columns = tuple(map(int, classes))
    else:
        _check_known(classes, labels, num_labels)
        columns = tuple(map(labels.index, classes))
    for column, times in Counter(columns).items():
        if times > 1:
            raise SampleError(f"{times} classes of the pictures are all number {column}; expected one.")
    return ClassMatch(columns=columns, num_labels=num_labels, by_number=by_number)


def are_numbers(classes: Sequence[str], num_labels: int) -> bool:
    """Whether all classes are called by the number of a logit."""
    return all(name.isascii() and name.isdigit() and int(name) < num_labels for name in classes)


def _check_known(classes: Sequence[str], labels: Sequence[str], num_labels: int) -> None:
    numbers = f"the numbers 0 to {num_labels - 1}"
    if not labels:
        raise SampleError(
            f"The model does not name its {num_labels} classes, so {_some(classes)} cannot be found.",
            hint=f"`regraft import --labels` names them. Or name the pictures' classes by {numbers}.",
        )
    unknown = [name for name in classes if name not in labels]
    if unknown:
        raise SampleError(
            f"The model does not know {len(unknown)} of the {len(classes)} classes: {_some(unknown)}; "
            f"expected some of {_some(labels)}, or {numbers}.",
            hint=f"{nearest(unknown[0], labels)}Rename or remove what the model cannot know.",
        )
    times = Counter(labels)
    ambiguous = [name for name in classes if times[name] > 1]
    if ambiguous:
        raise SampleError(
            f"The model has {times[ambiguous[0]]} classes called {ambiguous[0]!r}; expected one.",
            hint=f"Name the pictures' classes by {numbers}.",
        )


def _some(names: Sequence[str]) -> str:
    more = f" and {len(names) - NUM_NAMED:,} more" if len(names) > NUM_NAMED else ""
    return ", ".join(names[:NUM_NAMED]) + more
