"""Pairs to learn an upgrade from: items as the old model saw them, and as the new one does."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from itertools import islice
from pathlib import Path
from typing import Protocol, final, runtime_checkable

import numpy as np
from jaxtyping import Float32

from regraft.data.stream import counter_seed, random_words
from regraft.errors import SampleError, StoreError
from regraft.recipes.encoders import PictureEncoder, read_again
from regraft.recipes.filling import NO_EMBEDDING, has_direction
from regraft.recipes.intake import Picture, count_files, picture_files, read_picture
from regraft.recipes.labels import Labels, classify
from regraft.retrieval.pairs import Pairs
from regraft.retrieval.pairtable import from_table
from regraft.retrieval.store.protocol import Layout, Records, VectorStore
from regraft.vision.images import BadImage

PAIRS_A_DIMENSION = 6
"""Of the gallery's random items: after some are held out, four a dimension are left to fit on."""
ITEMS_AT_ONCE = 64

Watch = Callable[[str, int, int], object]
"""Told of progress: what is being done, how much of it is, and how much there is in all."""


@dataclass(frozen=True, eq=False)
class Change:
    """What an upgrade replaces by what."""

    store: VectorStore
    old: Layout
    new: PictureEncoder
    side: Layout | None
    """The side-information that is used."""
    classes: tuple[str, ...]
    """The classes of the new model's classifier, in the order of its logits."""


@dataclass(frozen=True, eq=False)
class Gathered:
    """Pairs, and what was found on the way to them."""

    pairs: Pairs
    rows: Records | None = None
    """The gallery's rows of these pairs as they were when they were encoded, which need not be done again;
    `None` if the pairs are not the gallery's."""
    classes: tuple[str, ...] = ()
    """Names of the labels."""
    gone: dict[str, str] = field(default_factory=dict[str, str])
    """Items that could not be encoded, and why."""
    num_unlabelled: int = 0
    """Items left out because nobody knows their class."""


@runtime_checkable
class PairSource(Protocol):
    """Where pairs come from."""

    def __call__(self, change: Change, labels: Labels | None, watch: Watch) -> Gathered:
        """Bring the pairs.

        Raises:
            SampleError: There are none, or they cannot be used.
        """
        ...


@final
@dataclass(frozen=True)
class FromGallery:
    """Random items of the gallery, encoded by the new model.

    Args:
        num: How many; `None` takes as many as the transformation needs, or all there are.
        seed: Chooses them.
    """

    num: int | None = None
    seed: int = 0

    def __call__(self, change: Change, labels: Labels | None, watch: Watch) -> Gathered:
        """Encode them from their sources; see `PairSource`."""
        rows = change.store.get(chosen_ids(change.store, self.num or _needed(change), self.seed))
        sides = None if change.side is None else _vectors(change.store, rows.ids, change.side)
        if sides is not None:
            rows = rows.named([name for name in rows.ids if name in sides])
        gone: dict[str, str] = {}
        pictures = _watched(_again(rows, change.new, gone), "encoding random pictures", len(rows), watch)
        (seen,) = _see(pictures, [change.new], gone)
        rows = rows.named([name for name in rows.ids if name in seen])
        side = None if sides is None else np.stack([sides[name] for name in rows.ids])
        _check_some(rows.ids, gone)
        pairs = Pairs(rows.ids, rows.vectors, np.stack([seen[name] for name in rows.ids]), side=side)
        return _labelled(Gathered(pairs, rows=rows, gone=gone), rows.sources, labels, change.classes)


@final
@dataclass(frozen=True, eq=False)
class FromPictures:
    """Pictures that need not be in the gallery, such as those that the new model was trained on.

    Args:
        places: Files, and folders to search at any depth.
        old: The old model.
        side: The side encoder, where side-information is used.
    """

    places: Sequence[Path]
    old: PictureEncoder
    side: PictureEncoder | None = None

    def __call__(self, change: Change, labels: Labels | None, watch: Watch) -> Gathered:
        """Encode them by every model; see `PairSource`."""
        encoders = [self.old, change.new, *([self.side] if change.side and self.side else [])]
        gone: dict[str, str] = {}
        sources: dict[str, str] = {}
        num_files, _ = count_files(self.places)
        files = picture_files(self.places)
        pictures = _watched(_read(files, encoders, sources, gone), "encoding pairs", num_files, watch)
        seen = _see(pictures, encoders, gone)
        ids = list(seen[0])
        _check_some(ids, gone)
        columns = [np.stack([vectors[name] for name in ids]) for vectors in seen]
        pairs = Pairs(ids, columns[0], columns[1], side=columns[2] if len(columns) > 2 else None)
        gathered = Gathered(pairs, gone=gone)
        return _labelled(gathered, [sources[name] for name in ids], labels, change.classes)


@final
@dataclass(frozen=True, eq=False)
class Given:
    """Pairs that someone else has made.

    Args:
        pairs: With vectors as the gallery would hold them. Labels of theirs are used as they are.
    """

    pairs: Pairs

    def __call__(self, change: Change, labels: Labels | None, watch: Watch) -> Gathered:
        """Check that they fit the gallery; see `PairSource`."""
        wanted = {"old": change.old.dimension, "new": change.new.layout.dimension}
        for name, dimension in wanted.items():
            found = getattr(self.pairs, name).shape[1]
            if found != dimension:
                raise SampleError(
                    f"The {name} vectors of the pairs have {found} numbers, those of the {name} model "
                    f"{dimension}."
                )
        pairs = self.pairs
        if change.side is None:
            pairs = pairs.without_side()
        elif pairs.side is None:
            raise SampleError(
                "The pairs have no side-information, but the gallery's is to be used.",
                hint="--no-side leaves it out.",
            )
        gathered = Gathered(pairs)
        return _labelled(gathered, [None] * len(pairs), labels, change.classes)


def given_pairs(table: Path) -> Given:
    """Pairs from a Parquet file with the columns `old`, `new`, and where it has them `side`, `id`, `label`.

    Raises:
        SampleError: The file cannot be read, or lacks a column.
    """
    import pyarrow as pa
    import pyarrow.parquet

    try:
        columns = set(pyarrow.parquet.read_schema(table).names)
    except (OSError, pa.ArrowException) as error:
        reason = str(error).rstrip(".")
        raise SampleError(f"{table} cannot be read as a Parquet file: {reason}.") from error
    side, ids, labels = (name if name in columns else None for name in ("side", "id", "label"))
    return Given(from_table(table, side=side, ids=ids, labels=labels))


def chosen_ids(store: VectorStore, num: int, seed: int) -> list[str]:
    """The ids of some random rows, the same whenever they are asked for."""
    ids = sorted(name for rows in store.scan() for name in rows.ids)
    words = np.arange(len(ids), dtype=np.uint64) + np.uint64(counter_seed("pairs", seed))
    order = np.argsort(random_words(words, 0), kind="stable")
    return sorted(ids[place] for place in order[:num])


def _needed(change: Change) -> int:
    side = 0 if change.side is None else change.side.dimension
    return PAIRS_A_DIMENSION * max(change.old.dimension + side, change.new.layout.dimension)


def _again(rows: Records, encoder: PictureEncoder, gone: dict[str, str]) -> Iterator[Picture]:
    for start in range(0, len(rows), ITEMS_AT_ONCE):
        part = slice(start, start + ITEMS_AT_ONCE)
        read = read_again(rows.ids[part], rows.sources[part], encoder.preprocess)
        gone.update(read.gone)
        yield from read.pictures


def _read(
    files: Iterable[Path], encoders: Sequence[PictureEncoder], sources: dict[str, str], gone: dict[str, str]
) -> Iterator[Picture]:
    """Read each picture once, whatever copies of it there are."""
    preprocesses = {encoder.preprocess for encoder in encoders}
    for file in files:
        try:
            picture = read_picture(file, preprocesses)
        except BadImage as error:
            gone[str(file)] = f"{error.defect} ({error.detail})"
            continue
        if picture.id not in sources:
            sources[picture.id] = str(picture.path)
            yield picture


def _see(
    pictures: Iterable[Picture], encoders: Sequence[PictureEncoder], gone: dict[str, str]
) -> list[dict[str, Float32[np.ndarray, " d"]]]:
    """Encode pictures by each encoder; by id, those that every encoder gives a vector."""
    seen: list[dict[str, Float32[np.ndarray, " d"]]] = [{} for _ in encoders]
    stream = iter(pictures)
    while batch := list(islice(stream, ITEMS_AT_ONCE)):
        made = [encoder(batch) for encoder in encoders]
        sound = np.all([has_direction(vectors) for vectors in made], axis=0)
        for row, picture in enumerate(batch):
            if not sound[row]:
                gone[picture.id] = NO_EMBEDDING
                continue
            for vectors, column in zip(made, seen, strict=True):
                column[picture.id] = vectors[row]
    return seen


def _watched(pictures: Iterable[Picture], what: str, total: int, watch: Watch) -> Iterator[Picture]:
    for num_done, picture in enumerate(pictures, start=1):
        watch(what, num_done, total)
        yield picture


def _vectors(store: VectorStore, ids: Sequence[str], layout: Layout) -> dict[str, Float32[np.ndarray, " d"]]:
    found = store.find(ids, space=layout.space)
    return dict(zip(found.ids, found.vectors, strict=True))


def _labelled(
    gathered: Gathered, sources: Sequence[str | None], labels: Labels | None, known: Sequence[str]
) -> Gathered:
    """Give pairs their classes, leaving out those that have none."""
    if labels is None:
        return gathered
    pairs = gathered.pairs
    names = [labels.of(name, source) for name, source in zip(pairs.ids, sources, strict=True)]
    known_rows = [row for row, name in enumerate(names) if name is not None]
    if not known_rows:
        raise SampleError(
            f"None of the {len(pairs)} pairs has a label.",
            hint="Name them by the gallery's ids, or by the paths that its rows came from.",
        )
    classified = classify([name for name in names if name is not None], known)
    return replace(
        gathered,
        pairs=replace(pairs.take(known_rows), labels=classified.labels),
        rows=None if gathered.rows is None else gathered.rows.take(known_rows),
        classes=classified.classes,
        num_unlabelled=len(pairs) - len(known_rows),
    )


def _check_some(ids: Sequence[str], gone: dict[str, str]) -> None:
    if ids:
        return
    named = "; ".join(f"{name}: {why}" for name, why in list(gone.items())[:3])
    raise StoreError(
        f"None of {len(gone)} pictures can be encoded again: {named or 'there are none'}.",
        hint="Bring the sources back, or give pairs that were made elsewhere.",
    )
