"""A gallery of pictures: fill it, and look after it.

    gallery/
      gallery.lance/                 a row a picture (LanceDB), what `open_gallery("gallery")` opens
      encoders/<space>.safetensors   the model files whose vectors the rows hold
      upgrade/                       the upgrade that was planned last
      writer.lock, writer.txt        the one writer at work, and who it is

The models are copied in, so that a search needs nothing but the folder. A gallery on a server keeps its model
files and its upgrade in a workspace of the same form.
"""

import time
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from pathlib import Path

from regraft.errors import RecipeError
from regraft.recipes.encoders import Encoders, PictureEncoder, keep, load_encoder
from regraft.recipes.filling import Filler, Watch
from regraft.recipes.intake import Intake, count_files, picture_files
from regraft.recipes.place import Place, place_of
from regraft.retrieval.store.checks import check_layout
from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.protocol import Layout, Origin, VectorStore
from regraft.vision.modelfile import read_card

ROWS_A_PUT = 128
"""Pictures encoded and written at once: what a kill can cost."""
PUTS_A_MERGE = 256
"""Every put leaves a file; so many are merged into one."""
MIN_ROWS_FOR_INDEX = 50_000
"""Below this a search that reads every vector takes less than half a second."""
ORIGINS: tuple[Origin, ...] = ("native", "transformed")


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
    num_completed: int
    """Vectors that rows lacked in one of the gallery's other spaces, and have now."""
    incomplete: tuple[tuple[str, str], ...]
    """Ids of rows that still lack one, each with the reason."""
    num_rows: int
    """Rows in the gallery now."""
    duration_s: float


@dataclass(frozen=True)
class SpaceState:
    """What a gallery holds in one space."""

    space: str
    """Fingerprint of the encoder."""
    dimension: int
    is_served: bool
    """Whether the gallery answers in it."""
    is_packed: bool
    """Whether it is side-information: 8-bit integers, read by the next upgrade, never searched."""
    architecture: str | None
    """Of the encoder; `None` if the gallery has no model file of it."""
    is_fused: bool | None
    rows: Mapping[Origin, int]
    """Rows by origin."""
    num_lacking: int
    """Rows without a vector in it."""


@dataclass(frozen=True)
class Status:
    """The state of a gallery."""

    space: str
    """Fingerprint of the encoder of the space that is served."""
    dimension: int
    architecture: str
    is_fused: bool
    rows: Mapping[Origin, int]
    """Rows by origin, in the space that is served."""
    spaces: tuple[SpaceState, ...]
    """Every open space, the served one first."""
    num_indexed: int | None
    """Rows the vector index covers; `None` without an index, where a search reads every row, and where a
    server looks after it."""
    size_bytes: int
    """On disk, the encoders and replaced versions of the rows included; of a server's gallery, its files."""
    missing: tuple[str, ...] | None
    """Sources, or ids of rows without one, that are not there any more; `None` if nobody looked."""


def add(
    gallery: Place | Path | str,
    images: Iterable[Path],
    *,
    model: Path | None = None,
    side: Path | None = None,
    max_bad_share: float = 0.05,
    min_rows_for_index: int = MIN_ROWS_FOR_INDEX,
    watch: Watch = lambda num_done, num_files: None,
) -> Added:
    """Encode pictures and add them to a gallery, which is made if it is not there.

    A picture is named by a hash of its file's bytes. One that has a row is not encoded again, so a call
    that was interrupted, however abruptly, is continued by the same call. Memory is needed for one batch,
    and about 200 bytes a picture for its name.

    A picture gets a vector in every open space that the gallery has an encoder of: during an upgrade by both
    models, and side-information by the side encoder. Which space is served may change meanwhile. Rows that
    lack such a vector, because they are older or because a call was killed between two writes, get it from
    their sources. (Not in the space that an upgrade is leading to: there the upgrade computes it.)

    Args:
        gallery: The gallery's folder, or a place.
        images: Picture files, and folders to search at any depth; none only completes the rows there are.
        model: The model file that encodes; `None` takes the gallery's own.
        side: The model file of a side encoder whose vectors are kept for upgrades to come; `None` keeps those
            of the side encoders that the gallery has.
        max_bad_share: Largest share of the pictures that may be unreadable, in [0, 1].
        min_rows_for_index: From how many rows on a gallery in LanceDB gets a vector index, at least 1.
        watch: Told of progress after every file.

    Raises:
        RecipeError: `max_bad_share` or `min_rows_for_index` is out of range.
        SampleError: A file or folder is not there, there are no pictures, or too many are bad.
        SpaceMismatch: The gallery holds the vectors of another model.
        StoreError: The gallery is new and no model is given, it is damaged, or another process has been
            writing to it for too long.
        WeightsError: A model file cannot be used.
    """
    _check_options(max_bad_share, min_rows_for_index)
    started_s = time.monotonic()
    place, places = place_of(gallery), tuple(images)
    store = place.open()
    num_files, num_skipped = (0, 0) if store.layout and not places else count_files(places)
    first = _first(place, store, model)
    keep(first.file, place.encoder(first.space))
    filler = Filler(store, Encoders(place), first.layout, side and _kept_side(place, side))
    num_before = store.count()
    intake = Intake(filler.preprocesses(), _ids(store), num_files=num_files, max_bad_share=max_bad_share)
    num_new = _fill(store, filler, intake, _watched(picture_files(places), num_files, watch))
    completed = filler.complete(except_space=place.upgrade_space(), batch_rows=ROWS_A_PUT)
    num_rows = num_before + num_new
    if num_rows:
        store.tidy()
        _index_large(store, num_rows, min_rows_for_index)
    return Added(
        num_new=num_new,
        num_present=intake.num_present,
        num_duplicates=intake.num_duplicates,
        num_skipped=num_skipped,
        bad=tuple(intake.bad),
        num_completed=completed.num_filled,
        incomplete=tuple(completed.gone.items()),
        num_rows=num_rows,
        duration_s=time.monotonic() - started_s,
    )


def status(gallery: Place | Path | str, *, check_sources: bool = False) -> Status:
    """Describe a gallery.

    Args:
        gallery: The gallery's folder, or a place.
        check_sources: Look whether every source is still there.

    Raises:
        StoreError: There is no gallery, or it is damaged.
        WeightsError: The served space's model file is gone or damaged.
    """
    place = place_of(gallery)
    store = place.open()
    served = place.served(store)
    card = read_card(place.encoder(served.space))
    spaces = tuple(_space_state(place, store, layout) for layout in store.spaces)
    return Status(
        space=served.space,
        dimension=served.dimension,
        architecture=card.architecture,
        is_fused=card.fused,
        rows=spaces[0].rows,
        spaces=spaces,
        num_indexed=store.num_indexed if isinstance(store, LanceStore) else None,
        size_bytes=sum(path.stat().st_size for path in place.folder.rglob("*") if path.is_file()),
        missing=tuple(_missing(store)) if check_sources else None,
    )


def _check_options(max_bad_share: float, min_rows_for_index: int) -> None:
    if not 0 <= max_bad_share <= 1:
        raise RecipeError(f"max_bad_share is {max_bad_share:g}, expected 0 to 1.")
    if min_rows_for_index < 1:
        raise RecipeError(f"min_rows_for_index is {min_rows_for_index}, expected at least 1.")


def _first(place: Place, store: VectorStore, model: Path | None) -> PictureEncoder:
    """The encoder that the call begins with: the one asked for, or that of the served space."""
    if model is None:
        return Encoders(place).of(place.served(store))
    chosen = load_encoder(model)
    if chosen.layout not in store.spaces:
        check_layout(chosen.space, chosen.layout.dimension, store.layout)
    return chosen


def _kept_side(place: Place, side: Path) -> Layout:
    """The space of a side encoder, whose model file is now in the gallery."""
    found = load_encoder(side, packed=True)
    keep(side, place.encoder(found.space))
    return found.layout


def _ids(store: VectorStore) -> set[str]:
    return {name for records in store.scan() for name in records.ids}


def _watched(paths: Iterable[Path], num_files: int, watch: Watch) -> Iterator[Path]:
    for num_done, path in enumerate(paths):
        watch(num_done, num_files)
        yield path
    watch(num_files, num_files)


def _fill(store: VectorStore, filler: Filler, intake: Intake, paths: Iterable[Path]) -> int:
    """Encode and write what has no row yet; return the number of rows written."""
    num_written = num_puts = 0
    pictures = intake.pictures(paths)
    while batch := list(islice(pictures, ROWS_A_PUT)):
        num_written += filler.write(batch, intake.reject)
        num_puts += 1
        if num_puts % PUTS_A_MERGE == 0:
            store.tidy()
    return num_written


def _index_large(store: VectorStore, num_rows: int, min_rows_for_index: int) -> None:
    """Index a large gallery in a folder. One on a server is indexed when its owner asks for it."""
    if isinstance(store, LanceStore) and num_rows >= min_rows_for_index and store.num_indexed is None:
        store.index()


def _space_state(place: Place, store: VectorStore, layout: Layout) -> SpaceState:
    file = place.encoder(layout.space)
    card = read_card(file) if file.is_file() else None
    return SpaceState(
        space=layout.space,
        dimension=layout.dimension,
        is_served=layout == store.layout,
        is_packed=layout.packed,
        architecture=card and card.architecture,
        is_fused=card and card.fused,
        rows={origin: store.count(space=layout.space, origin=origin) for origin in ORIGINS},
        num_lacking=store.count(lacking=layout.space),
    )


def _missing(store: VectorStore) -> Iterator[str]:
    # Read first: to look for many files may take longer than a scan can last while another process tidies.
    places = [place for rows in store.scan() for place in zip(rows.ids, rows.sources, strict=True)]
    return (source or name for name, source in places if source is None or not Path(source).exists())
