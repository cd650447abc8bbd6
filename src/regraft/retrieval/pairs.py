"""The same items as an old model and a new one see them: what a transformation is learned from."""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Float32, Int
from numpy.lib.format import MAGIC_PREFIX, read_array
from numpy.typing import ArrayLike

from regraft.data.stream import counter_seed, random_words
from regraft.errors import SampleError

MIN_PAIRS = 2


@dataclass(frozen=True, eq=False)
class Pairs:
    """Vectors of one item a row, by two models, with what else is known of it. Checked whole.

    Raises:
        SampleError: Columns of different lengths, an id given twice, or a vector that is zero or not finite.
            It names the column and the row.
    """

    # Every column names its own number of rows, so that a wrong one gets the message that names it.
    ids: list[str]
    old: Float32[np.ndarray, "n_old d_old"]
    """By the model that made the gallery, as the gallery holds them."""
    new: Float32[np.ndarray, "n_new d_new"]
    """By the model that shall replace it, as the gallery would hold them."""
    side: Float32[np.ndarray, "n_side d_side"] | None = None
    """By a further model that ran when the items were added; `None` if there was none."""
    labels: Int[np.ndarray, " n_labels"] | None = None
    """Class of each item, from 0; `None` if unknown."""

    def __post_init__(self) -> None:
        if len(self.ids) < MIN_PAIRS:
            raise SampleError(f"There are {len(self.ids)} pairs, expected at least {MIN_PAIRS}.")
        for name, column in self._columns().items():
            if len(column) != len(self.ids):
                raise SampleError(
                    f"Column {name!r} has {len(column)} rows, but there are {len(self.ids)} ids."
                )
        _check_ids(self.ids)
        for name in ("old", "new", "side"):
            vectors = getattr(self, name)
            if vectors is not None:
                _check_vectors(name, vectors, self.ids)
        if self.labels is not None and self.labels.min() < 0:
            row = int(self.labels.argmin())
            raise SampleError(
                f"The label of row {row} ({self.ids[row]!r}) is {self.labels[row]}, expected 0 or more."
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def dimensions(self) -> tuple[int, int, int]:
        """Numbers in an old vector, in a new one, and in the side-information, 0 if there is none."""
        return self.old.shape[1], self.new.shape[1], 0 if self.side is None else self.side.shape[1]

    @property
    def fingerprint(self) -> str:
        """Hash of all of it, as 32 hex digits: what a training that goes on must find unchanged."""
        digest = hashlib.blake2b(digest_size=16)
        for name, column in self._columns().items():
            digest.update(f"{name}|{column.dtype}|{column.shape}".encode())
            digest.update(np.ascontiguousarray(column).data)
        return digest.hexdigest()

    def take(self, rows: Sequence[int] | Int[np.ndarray, " m"]) -> "Pairs":
        """Return some of the rows, in the order given."""
        rows = np.asarray(rows, np.int64)
        taken = {name: column[rows] for name, column in self._columns().items()}
        return Pairs([self.ids[row] for row in rows], **taken)

    def without_side(self) -> "Pairs":
        """Return the same pairs, as if there were no side-information."""
        return Pairs(self.ids, self.old, self.new, labels=self.labels)

    def split(self, share: float, seed: int) -> tuple["Pairs", "Pairs"]:
        """Return pairs to fit on and pairs to judge on, chosen at random.

        Which pairs are held out depends on their number and the seed alone.

        Args:
            share: Of the pairs, how many are held out, between 0 and 1.
            seed: Any integer.

        Raises:
            SampleError: Either part would have fewer than two pairs.
        """
        num_held_out = round(share * len(self))
        if not MIN_PAIRS <= num_held_out <= len(self) - MIN_PAIRS:
            raise SampleError(
                f"Holding out {share:g} of {len(self)} pairs leaves {num_held_out} to judge on and "
                f"{len(self) - num_held_out} to fit on, expected at least {MIN_PAIRS} each.",
                hint="Bring more pairs.",
            )
        keys = random_words(np.arange(len(self), dtype=np.uint64) + np.uint64(counter_seed("split", seed)), 0)
        order = np.argsort(keys, kind="stable")
        return self.take(np.sort(order[num_held_out:])), self.take(np.sort(order[:num_held_out]))

    def _columns(self) -> dict[str, np.ndarray]:
        columns = {"old": self.old, "new": self.new, "side": self.side, "labels": self.labels}
        return {name: column for name, column in columns.items() if column is not None}


def from_arrays(
    old: ArrayLike,
    new: ArrayLike,
    *,
    side: ArrayLike | None = None,
    labels: ArrayLike | None = None,
    ids: Sequence[str] | None = None,
) -> Pairs:
    """Pair the rows of arrays; any kind of number is made float32.

    Args:
        old: `(n, d_old)`.
        new: `(n, d_new)`.
        side: `(n, d_side)`.
        labels: `(n)`, whole numbers from 0.
        ids: A name for each row; `None` numbers them.

    Raises:
        SampleError: See `Pairs`; or an array has not the number of axes it should have.
    """
    old_vectors = matrix("old", old)
    return Pairs(
        ids=[str(row) for row in range(len(old_vectors))] if ids is None else list(ids),
        old=old_vectors,
        new=matrix("new", new),
        side=None if side is None else matrix("side", side),
        labels=None if labels is None else _classes(labels),
    )


def from_npy(
    old: str | Path, new: str | Path, *, side: str | Path | None = None, labels: str | Path | None = None
) -> Pairs:
    """Pair the rows of `.npy` files.

    Raises:
        SampleError: A file cannot be read as an array, the old and new vectors are not equally many; or see
            `from_arrays`.
    """
    old_vectors, new_vectors = matrix("old", _load("old", old)), matrix("new", _load("new", new))
    if len(old_vectors) != len(new_vectors):
        raise SampleError(
            f"{old} has {len(old_vectors)} rows, but {new} has {len(new_vectors)}; expected the same items "
            "in the same order."
        )
    return from_arrays(
        old_vectors,
        new_vectors,
        side=None if side is None else _load("side", side),
        labels=None if labels is None else _load("labels", labels),
    )


def matrix(name: str, values: ArrayLike) -> Float32[np.ndarray, "n d"]:
    """Return `values` as float32 rows.

    Raises:
        SampleError: They are not numbers, or have not two axes.
    """
    try:
        vectors = np.asarray(values, np.float32)
    except (TypeError, ValueError) as error:
        raise SampleError(f"Column {name!r} does not hold vectors of one length: {error}.") from error
    if vectors.ndim != 2 or not vectors.shape[1]:
        raise SampleError(f"Column {name!r} has shape {vectors.shape}, expected rows of vectors.")
    return np.ascontiguousarray(vectors)


def _classes(values: ArrayLike) -> Int[np.ndarray, " n"]:
    labels = np.asarray(values)
    if labels.ndim != 1 or labels.dtype.kind not in "iu":
        raise SampleError(
            f"The labels are {labels.dtype} of shape {labels.shape}, expected one whole number a row."
        )
    return labels.astype(np.int64)


def _load(name: str, path: str | Path) -> np.ndarray:
    # Not numpy.load, which also opens archives and pickles.
    try:
        with Path(path).open("rb") as file:
            if file.read(len(MAGIC_PREFIX)) == MAGIC_PREFIX:
                file.seek(0)
                return read_array(file, allow_pickle=False)
    except (OSError, ValueError) as error:
        reason = str(error).rstrip(".")
        raise SampleError(f"{path} cannot be read as the array {name!r}: {reason}.") from error
    raise SampleError(
        f"{path} cannot be read as the array {name!r}; expected a .npy file.", hint="numpy.save writes one."
    )


def _check_ids(ids: Sequence[str]) -> None:
    if len(set(ids)) == len(ids):
        return
    seen = dict[str, int]()
    for row, name in enumerate(ids):
        if name in seen:
            raise SampleError(
                f"Rows {seen[name]} and {row} have the same id {name!r}, expected one row an item."
            )
        seen[name] = row


def _check_vectors(name: str, vectors: Float32[np.ndarray, "n d"], ids: Sequence[str]) -> None:
    finite = np.isfinite(vectors).all(axis=1)
    if not finite.all():
        row = int(finite.argmin())
        raise SampleError(f"Vector {name!r} of row {row} ({ids[row]!r}) has a number that is not finite.")
    some = vectors.any(axis=1)
    if not some.all():
        row = int(some.argmin())
        raise SampleError(
            f"Vector {name!r} of row {row} ({ids[row]!r}) is zero, which has no direction to compare.",
            hint="Leave such rows out.",
        )
