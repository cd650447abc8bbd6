"""A gallery of pictures in a folder: fill it, ask it, look after it.

    gallery/
      gallery.lance/                 a row a picture (LanceDB), what `open_gallery("gallery")` opens
      encoders/<space>.safetensors   the model file whose vectors the rows hold
      writer.lock, writer.txt        the one writer at work, and who it is

The model is copied in, so that a search needs nothing but the folder.
"""

import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import final

import numpy as np
from torch import Tensor

from regraft.errors import RecipeError, StoreError
from regraft.files import replacing
from regraft.nn.encoder import Encoder
from regraft.recipes.intake import Intake, Picture, count_files, picture_files, read_picture
from regraft.retrieval.store.checks import check_layout, check_num_hits
from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.protocol import Layout, Origin
from regraft.vision.backbone import embedder
from regraft.vision.modelfile import load_model, read_card
from regraft.vision.preprocess import Preprocess

ROWS_A_PUT = 128
"""Pictures encoded and written at once: what a kill can cost."""
PUTS_A_MERGE = 256
"""Every put leaves a file; so many are merged into one."""
MIN_ROWS_FOR_INDEX = 50_000
"""Below this a search that reads every vector takes less than half a second."""
ORIGINS: tuple[Origin, ...] = ("native", "transformed")

Watch = Callable[[int, int], object]
"""Told of progress: files looked at, and files in all."""


@dataclass(frozen=True)
class Added:
    """What became of the files given to `add`."""

    num_new: int
    """Rows written."""
    num_present: int
    """Pictures that had a row before."""
    num_duplicates: int
    """Files with the same bytes as another file of this call."""
    num_skipped: int
    """Files of a folder that are hidden or not named like a picture."""
    bad: tuple[tuple[Path, str], ...]
    """Files that could not be added, each with the reason."""
    num_rows: int
    """Rows in the gallery now."""
    duration_s: float


@dataclass(frozen=True)
class Hit:
    """A picture of the gallery that resembles the query."""

    id: str
    score: float
    """Cosine with the query, in [-1, 1]."""
    source: str | None
    """Where the picture was when it was added."""


@dataclass(frozen=True)
class Answer:
    """What a gallery has for one query."""

    query: Path
    hits: tuple[Hit, ...]
    """Best first."""


@dataclass(frozen=True)
class Status:
    """The state of a gallery."""

    space: str
    """Fingerprint of the encoder, the same for every row."""
    dimension: int
    architecture: str
    is_fused: bool
    rows: Mapping[Origin, int]
    """Rows by origin."""
    num_indexed: int | None
    """Rows the vector index covers; `None` without an index, where a search reads every row."""
    size_bytes: int
    """On disk, the encoder and replaced versions of the rows included."""
    missing: tuple[str, ...] | None
    """Sources, or ids of rows without one, that are not there any more; `None` if nobody looked."""


def add(
    gallery: Path,
    images: Iterable[Path],
    *,
    model: Path | None = None,
    max_bad_share: float = 0.05,
    min_rows_for_index: int = MIN_ROWS_FOR_INDEX,
    watch: Watch = lambda num_done, num_files: None,
) -> Added:
    """Encode pictures and add them to a gallery, which is made if it is not there.

    A picture is named by a hash of its file's bytes. One that has a row is not encoded again, so a call
    that was interrupted, however abruptly, is continued by the same call. Memory is needed for one batch,
    and about 200 bytes a picture for its name.

    Args:
        gallery: The gallery's folder.
        images: Picture files, and folders to search at any depth.
        model: The model file that encodes; `None` takes the gallery's own.
        max_bad_share: Largest share of the pictures that may be unreadable, in [0, 1].
        min_rows_for_index: From how many rows on a vector index is built, at least 1.
        watch: Told of progress after every file.

    Raises:
        RecipeError: `max_bad_share` or `min_rows_for_index` is out of range.
        SampleError: A file or folder is not there, there are no pictures, or too many are bad.
        SpaceMismatch: The gallery holds the vectors of another model.
        StoreError: The gallery is new and no model is given, it is damaged, or another process is writing to
            it.
        WeightsError: The model file cannot be used.
    """
    _check_options(max_bad_share, min_rows_for_index)
    started_s = time.monotonic()
    places = tuple(images)
    num_files, num_skipped = count_files(places)
    store = LanceStore(gallery)
    file = model or _encoder_file(gallery, _layout(gallery, store).space)
    encoder, preprocess, layout = _load(file)
    check_layout(layout.space, layout.dimension, store.layout)
    with store.writing():
        _keep(file, _encoder_file(gallery, layout.space))
        num_before = store.count()
        intake = Intake(preprocess, _ids(store), num_files=num_files, max_bad_share=max_bad_share)
        num_new = _fill(store, encoder, intake, _watched(picture_files(places), num_files, watch))
        num_rows = num_before + num_new
        if num_rows:
            _tidy(store, num_before, num_rows, min_rows_for_index)
    return Added(
        num_new=num_new,
        num_present=intake.num_present,
        num_duplicates=intake.num_duplicates,
        num_skipped=num_skipped,
        bad=tuple(intake.bad),
        num_rows=num_rows,
        duration_s=time.monotonic() - started_s,
    )


def search(
    gallery: Path, pictures: Sequence[Path], k: int = 10, *, exclude_itself: bool = False
) -> list[Answer]:
    """Find the pictures of a gallery that resemble each query most.

    Args:
        gallery: The gallery's folder.
        pictures: Query files.
        k: Hits a query; fewer if the gallery is smaller.
        exclude_itself: Leave out the row of the very same file content.

    Raises:
        BadImage: A query cannot be read.
        StoreError: There is no gallery, or it is damaged.
        VectorError: `k` is below 1.
    """
    check_num_hits(k)
    store = LanceStore(gallery)
    space = _layout(gallery, store).space
    encoder, preprocess, _ = _load(_encoder_file(gallery, space))
    if encoder.fingerprint != space:
        raise StoreError(
            f"The encoder in {gallery} is damaged: its fingerprint is {encoder.fingerprint}, not {space}.",
            hint="Copy the model file that filled the gallery over it.",
        )
    answers: list[Answer] = []
    for start in range(0, len(pictures), ROWS_A_PUT):
        queries = [read_picture(path, preprocess) for path in pictures[start : start + ROWS_A_PUT]]
        vectors = encoder([query.pixels for query in queries])
        found = store.search(vectors, k + exclude_itself, space=space)
        sources = _sources(store, {name for names in found.ids for name in names})
        for path, query, names, scores in zip(
            pictures[start:], queries, found.ids, found.scores, strict=False
        ):
            hits = [
                Hit(name, score, sources[name]) for name, score in zip(names, scores.tolist(), strict=True)
            ]
            others = [hit for hit in hits if not (exclude_itself and hit.id == query.id)]
            answers.append(Answer(path, tuple(others[:k])))
    return answers


def status(gallery: Path, *, check_sources: bool = False) -> Status:
    """Describe a gallery.

    Args:
        gallery: The gallery's folder.
        check_sources: Look whether every source is still there.

    Raises:
        StoreError: There is no gallery, or it is damaged.
        WeightsError: The encoder's file is gone or damaged.
    """
    store = LanceStore(gallery)
    layout = _layout(gallery, store)
    card = read_card(_encoder_file(gallery, layout.space))
    return Status(
        space=layout.space,
        dimension=layout.dimension,
        architecture=card.architecture,
        is_fused=card.fused,
        rows={origin: store.count(origin=origin) for origin in ORIGINS},
        num_indexed=store.num_indexed,
        size_bytes=sum(path.stat().st_size for path in gallery.rglob("*") if path.is_file()),
        missing=tuple(_missing(store)) if check_sources else None,
    )


def _check_options(max_bad_share: float, min_rows_for_index: int) -> None:
    if not 0 <= max_bad_share <= 1:
        raise RecipeError(f"max_bad_share is {max_bad_share:g}, expected 0 to 1.")
    if min_rows_for_index < 1:
        raise RecipeError(f"min_rows_for_index is {min_rows_for_index}, expected at least 1.")


def _layout(gallery: Path, store: LanceStore) -> Layout:
    layout = store.layout
    if layout is None:
        raise StoreError(
            f"{gallery} holds no gallery yet.",
            hint="regraft gallery add GALLERY IMAGES --model MODEL fills one.",
        )
    return layout


def _encoder_file(gallery: Path, space: str) -> Path:
    return gallery / "encoders" / f"{space}.safetensors"


@final
class _Applied:
    """A preprocessing that has been applied already, so that whole pictures need not wait for their batch."""

    def __init__(self, preprocess: Preprocess) -> None:
        self._preprocess = preprocess

    def __call__(self, sample: Tensor) -> Tensor:
        return sample

    def describe(self) -> Mapping[str, object]:
        return self._preprocess.describe()


def _load(file: Path) -> tuple[Encoder[Tensor], Preprocess, Layout]:
    model, card = load_model(file)
    encoder = Encoder(embedder(model), _Applied(card.preprocess))
    return encoder, card.preprocess, Layout(encoder.fingerprint, model.num_features)


def _keep(file: Path, copy: Path) -> None:
    if not copy.exists():
        with replacing(copy) as temporary:
            shutil.copyfile(file, temporary)


def _ids(store: LanceStore) -> set[str]:
    return {name for records in store.scan() for name in records.ids}


def _watched(paths: Iterable[Path], num_files: int, watch: Watch) -> Iterator[Path]:
    for num_done, path in enumerate(paths):
        watch(num_done, num_files)
        yield path
    watch(num_files, num_files)


def _fill(store: LanceStore, encoder: Encoder[Tensor], intake: Intake, paths: Iterable[Path]) -> int:
    """Encode and write what has no row yet; return the number of rows written."""
    num_written = num_puts = 0
    pictures = intake.pictures(paths)
    while batch := list(islice(pictures, ROWS_A_PUT)):
        num_written += _put(store, encoder, intake, batch)
        num_puts += 1
        if num_puts % PUTS_A_MERGE == 0:
            store.optimize()
    return num_written


def _put(store: LanceStore, encoder: Encoder[Tensor], intake: Intake, batch: Sequence[Picture]) -> int:
    vectors = encoder([picture.pixels for picture in batch])
    # A network may send a picture to zero, which resembles nothing; a broken one sends it to NaN.
    is_sound = np.linalg.norm(vectors, axis=1) > 0
    for picture, sound in zip(batch, is_sound, strict=True):
        if not sound:
            intake.reject(picture.path, "no embedding (the model gives it a vector of zeros or NaN)")
    kept = [picture for picture, sound in zip(batch, is_sound, strict=True) if sound]
    return store.put(
        [picture.id for picture in kept],
        vectors[is_sound],
        space=encoder.fingerprint,
        sources=[str(picture.path) for picture in kept],
    )


def _tidy(store: LanceStore, num_before: int, num_rows: int, min_rows_for_index: int) -> None:
    """Merge the files of many puts, and index a large gallery, anew each time it has doubled."""
    store.optimize()
    num_doublings = (num_rows // min_rows_for_index).bit_length()
    has_doubled = num_doublings > (num_before // min_rows_for_index).bit_length()
    if num_doublings and (has_doubled or store.num_indexed is None):
        store.index()


def _sources(store: LanceStore, ids: set[str]) -> dict[str, str | None]:
    records = store.get(sorted(ids))
    return dict(zip(records.ids, records.sources, strict=True))


def _missing(store: LanceStore) -> Iterator[str]:
    for records in store.scan():
        for name, source in zip(records.ids, records.sources, strict=True):
            if source is None or not Path(source).exists():
                yield source or name
