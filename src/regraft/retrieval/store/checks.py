"""What a gallery refuses, decided before anything is written."""

from collections import Counter
from collections.abc import Sequence

import numpy as np
from jaxtyping import Float, Float32

from regraft.errors import SpaceMismatch, StoreError, VectorError
from regraft.retrieval.store.protocol import Layout, Origin, Records, VectorStore

# An index squares lengths in float32. Outside these bounds squares vanish or overflow, and cosines with them.
SHORTEST, LONGEST = 1e-15, 1e15

NUM_NAMED = 3


def checked_records(
    ids: Sequence[str],
    vectors: Float[np.ndarray, "n d"],
    *,
    space: str,
    origin: Origin,
    sources: Sequence[str | None] | None,
    layout: Layout | None,
) -> Records:
    """Return the arguments of a `put` as rows, or raise.

    Raises:
        SpaceMismatch: `layout` has another space.
        VectorError: Lengths that differ, another dimension, a vector without a cosine, an id that is empty or
            given twice, text that is not valid Unicode, or an unknown origin.
    """
    places: Sequence[str | None] = [None] * len(ids) if sources is None else sources
    if not len(ids) == len(vectors) == len(places):
        raise VectorError(
            f"A put got {len(ids)} ids, {len(vectors)} vectors and {len(places)} sources; "
            "expected one of each an item."
        )
    _check_origin(origin)
    stored = _checked_vectors(vectors, names=ids)
    _check_text(ids, space, places)
    check_layout(space, stored.shape[1], layout)
    return Records(list(ids), stored, [space] * len(ids), [origin] * len(ids), list(places))


def checked_fill(
    ids: Sequence[str],
    vectors: Float[np.ndarray, "n d"],
    *,
    space: str,
    origin: Origin,
    spaces: Sequence[Layout],
    seen: Records | None = None,
) -> tuple[Layout, Float32[np.ndarray, "n d"]]:
    """Return the layout of a `fill` and its vectors as float32, or raise.

    Raises:
        SpaceMismatch: The space is not open.
        VectorError: As for a `put`; or `seen` is of other rows, or of another order.
    """
    layout = open_layout(space, spaces)
    if len(ids) != len(vectors):
        raise VectorError(
            f"A fill got {len(ids)} ids and {len(vectors)} vectors; expected one of each an item."
        )
    if seen is not None and (seen.ids != list(ids) or len(set(seen.spaces)) > 1):
        raise VectorError(
            f"A fill of {named(ids)} has seen {named(seen.ids)}; expected the same rows, read in one space."
        )
    _check_origin(origin)
    stored = _checked_vectors(vectors, names=ids)
    _check_text(ids, space, ())
    check_layout(space, stored.shape[1], layout)
    return layout, stored


def unchanged(seen: Records, now: Records, filled: Records) -> list[str]:
    """The ids of rows that may still be given a vector that was made of what was seen of them.

    Args:
        seen: Rows as they were read before.
        now: Those of them that are present, read from the same space.
        filled: Those of them that have a vector in the space that is being filled. Only one that is there and
            native was set by somebody else meanwhile, unless it is what was seen.
    """
    before = _states(seen)
    native = {name for name, origin in zip(filled.ids, filled.origins, strict=True) if origin == "native"}
    taken = native if filled.spaces[:1] != seen.spaces[:1] else set[str]()
    return [name for name, state in _states(now).items() if state == before[name] and name not in taken]


def unchanged_in(store: VectorStore, seen: Records, space: str) -> list[str]:
    """The ids of `unchanged`, of rows that a store can look up; nothing may be written to it meanwhile."""
    if len(seen) == 0:
        return []
    now = store.find(seen.ids, space=seen.spaces[0])
    return unchanged(seen, now, store.find(seen.ids, space=space))


def _states(records: Records) -> dict[str, tuple[bytes, str, str | None]]:
    """All that can change of a row, by id."""
    columns = (map(np.ndarray.tobytes, records.vectors), records.origins, records.sources)
    return dict(zip(records.ids, zip(*columns, strict=True), strict=True))


def open_layout(space: str, spaces: Sequence[Layout]) -> Layout:
    """The layout of an open space.

    Raises:
        SpaceMismatch: It is not open.
    """
    for layout in spaces:
        if layout.space == space:
            return layout
    known = named([layout.space for layout in spaces]) or "none"
    raise SpaceMismatch(
        f"Space {space!r} is not open in the gallery; open are {known}.", hint="open_space() opens it."
    )


def check_opens(layout: Layout, spaces: Sequence[Layout]) -> bool:
    """Whether `layout` must still be opened.

    Raises:
        SpaceMismatch: The space is open with another dimension or packing.
        StoreError: Nothing was ever put.
    """
    if not spaces:
        raise StoreError("The gallery holds nothing yet; expected at least one put before another space.")
    same = [known for known in spaces if known.space == layout.space]
    if same and same[0] != layout:
        raise SpaceMismatch(f"Space {layout.space!r} is open as {same[0]}; it was to be opened as {layout}.")
    if layout.dimension < 1 or not layout.space:
        raise VectorError(f"{layout} cannot be opened; expected a name and at least one dimension.")
    return not same


def check_servable(space: str, spaces: Sequence[Layout]) -> Layout:
    """The layout of a space that a gallery may answer in.

    Raises:
        SpaceMismatch: It is not open, or packed.
    """
    layout = open_layout(space, spaces)
    if layout.packed:
        raise SpaceMismatch(f"Space {space!r} is packed, to be read only; expected one of whole vectors.")
    return layout


def check_tidied(space: str | None, spaces: Sequence[Layout]) -> Layout | None:
    """The layout of the space in which a gallery is to be quick; `None` if nothing was ever put.

    Raises:
        SpaceMismatch: It is named, and not open or packed.
    """
    return next(iter(spaces), None) if space is None else check_servable(space, spaces)


def check_complete(space: str, lacking: Sequence[str]) -> None:
    """Raise StoreError if rows lack a vector in the space that is to be served."""
    if lacking:
        raise StoreError(
            f"{len(lacking)} rows have no vector in space {space!r}: {named(lacking)}; expected one in each.",
            hint="fill() them first.",
        )


def check_closable(space: str, served: Layout | None) -> None:
    """Raise SpaceMismatch if `space` is the one that is served."""
    if served is not None and served.space == space:
        raise SpaceMismatch(f"Space {space!r} is served and cannot be closed.", hint="serve() another first.")


def checked_queries(
    queries: Float[np.ndarray, "q d"], k: int, *, space: str, layout: Layout | None
) -> Float32[np.ndarray, "q d"]:
    """Return the queries of a search as float32, or raise.

    Raises:
        SpaceMismatch: `layout` has another space.
        VectorError: Another dimension, a query without a cosine, or `k` below 1.
    """
    check_num_hits(k)
    checked = _checked_vectors(queries, names=[f"query {row}" for row in range(len(queries))])
    check_layout(space, checked.shape[1], layout)
    return checked


def check_layout(space: str, dimension: int, layout: Layout | None) -> None:
    """Raise unless vectors of this space and dimension belong in a gallery of this layout.

    Raises:
        SpaceMismatch: Another space.
        VectorError: Another dimension.
    """
    if layout is None:
        return
    if space != layout.space:
        raise SpaceMismatch(
            f"The gallery answers in space {layout.space!r}; it was given space {space!r}, "
            "and vectors of two models cannot be compared.",
            hint="Use the model that filled the gallery, or fill another gallery with the new one.",
        )
    if dimension != layout.dimension:
        raise VectorError(f"Vectors have dimension {dimension}; the gallery's have {layout.dimension}.")


def check_num_hits(k: int) -> None:
    """Raise VectorError unless a search can ask for so many hits."""
    if k < 1:
        raise VectorError(f"A search asked for {k} hits; expected at least 1.")


def check_batch_rows(batch_rows: int) -> None:
    """Raise StoreError unless a scan can proceed in batches of this size."""
    if batch_rows < 1:
        raise StoreError(f"A scan was asked for batches of {batch_rows} rows; expected at least 1.")


def all_of(ids: Sequence[str], found: Records) -> Records:
    """The rows of all ids, in their order, from the rows that were found of them.

    Raises:
        StoreError: An id is not among them.
    """
    present = set(found.ids)
    missing = [name for name in dict.fromkeys(ids) if name not in present]
    if missing:
        raise unknown_ids(missing)
    return found.named(ids)


def unknown_ids(missing: Sequence[str]) -> StoreError:
    """The error for ids that are not in the gallery."""
    return StoreError(f"Not in the gallery: {named(missing)}.", hint="scan() lists what is there.")


def named(values: Sequence[str]) -> str:
    """The first few of `values`, and how many more there are."""
    shown = ", ".join(repr(value) for value in values[:NUM_NAMED])
    more = len(values) - NUM_NAMED
    return shown if more <= 0 else f"{shown} and {more} more"


def _check_origin(origin: Origin) -> None:
    if origin not in ("native", "transformed"):
        raise VectorError(f"Origin {origin!r} is unknown; expected 'native' or 'transformed'.")


def _checked_vectors(vectors: Float[np.ndarray, "n d"], names: Sequence[str]) -> Float32[np.ndarray, "n d"]:
    if vectors.ndim != 2:
        raise VectorError(
            f"Vectors have shape {vectors.shape}; expected (number of vectors, dimension).",
            hint="A single vector goes in as vector[None].",
        )
    with np.errstate(over="ignore"):  # what float32 cannot hold becomes infinite, and is refused below
        stored = np.array(vectors, dtype=np.float32, order="C")
    infinite = np.flatnonzero(~np.isfinite(stored).all(axis=1))
    if len(infinite) > 0:
        raise VectorError(
            f"NaN or infinity in the vector of {named([names[row] for row in infinite.tolist()])}."
        )
    lengths = np.linalg.norm(stored.astype(np.float64), axis=1)
    outside = np.flatnonzero((lengths < SHORTEST) | (lengths > LONGEST))
    if len(outside) > 0:
        raise VectorError(
            f"No cosine exists for {named([names[row] for row in outside.tolist()])}: the vector has length "
            f"{lengths[outside[0]]:g}, expected {SHORTEST:g} to {LONGEST:g}."
        )
    return stored


def _check_text(ids: Sequence[str], space: str, sources: Sequence[str | None]) -> None:
    if not space or "" in ids:
        raise VectorError("An id or the space is empty; expected a name.")
    repeated = [name for name, times in Counter(ids).items() if times > 1]
    if repeated:
        raise VectorError(f"Given more than once in one call: {named(repeated)}; expected each id once.")
    broken = [text for text in (*ids, space, *sources) if text is not None and not _is_unicode(text)]
    if broken:
        raise VectorError(f"Not valid Unicode text: {named(broken)}.")


def _is_unicode(text: str) -> bool:
    """Whether `text` can be written down; half a surrogate pair, as in an undecodable file name, cannot."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True
