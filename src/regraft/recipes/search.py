"""Asking a gallery which of its pictures resemble others."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

from regraft.errors import SpaceMismatch
from regraft.recipes.encoders import Encoders
from regraft.recipes.intake import Picture, read_picture
from regraft.recipes.place import Place, place_of
from regraft.retrieval.store.checks import check_num_hits
from regraft.retrieval.store.protocol import Hits

QUERIES_AT_ONCE = 128
MAX_ATTEMPTS = 50
"""An upgrade switches once, a rollback once more; a gallery that switches all the time is out of order."""


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
    space: str
    """Fingerprint of the model that both sides were compared by."""


@final
class Searcher:
    """A gallery opened for questions. It keeps its models in memory, and follows upgrades.

    Args:
        gallery: The gallery's folder, or a place.

    Raises:
        StoreError: There is no gallery, or it is damaged.
    """

    def __init__(self, gallery: Place | Path | str) -> None:
        self._place = place_of(gallery)
        self._store = self._place.open()
        self._encoders = Encoders(self._place)
        self._place.served(self._store)

    def __call__(
        self, pictures: Sequence[Path], k: int = 10, *, exclude_itself: bool = False
    ) -> list[Answer]:
        """Find the pictures that resemble each query most.

        Args:
            pictures: Query files.
            k: Hits a query; fewer if the gallery is smaller.
            exclude_itself: Leave out the row of the very same file content.

        Raises:
            BadImage: A query cannot be read.
            StoreError: The gallery is damaged.
            VectorError: `k` is below 1.
        """
        check_num_hits(k)
        answers: list[Answer] = []
        for start in range(0, len(pictures), QUERIES_AT_ONCE):
            answers += self._answers(pictures[start : start + QUERIES_AT_ONCE], k, exclude_itself)
        return answers

    def _answers(self, paths: Sequence[Path], k: int, exclude_itself: bool) -> list[Answer]:
        queries, found, space = self._found(paths, k + exclude_itself)
        sources = self._sources({name for names in found.ids for name in names})
        answers: list[Answer] = []
        for path, query, names, scores in zip(paths, queries, found.ids, found.scores, strict=True):
            hits = [
                Hit(name, score, sources.get(name))
                for name, score in zip(names, scores.tolist(), strict=True)
                if not (exclude_itself and name == query.id)
            ]
            answers.append(Answer(path, tuple(hits[:k]), space))
        return answers

    def _found(self, paths: Sequence[Path], k: int) -> tuple[list[Picture], Hits, str]:
        """Encode and search in one space, whichever is served when the search begins."""
        for attempt in range(1, MAX_ATTEMPTS + 1):
            served = self._place.served(self._store)
            encoder = self._encoders.of(served)
            queries = [read_picture(path, [encoder.preprocess]) for path in paths]
            try:
                return queries, self._store.search(encoder(queries), k, space=served.space), served.space
            except SpaceMismatch:
                # Another space is served since the query was encoded: encode it for that one.
                if attempt == MAX_ATTEMPTS:
                    raise
        raise AssertionError("the last attempt returns or raises")

    def _sources(self, ids: set[str]) -> dict[str, str | None]:
        records = self._store.find(sorted(ids))
        return dict(zip(records.ids, records.sources, strict=True))


def search(
    gallery: Place | Path | str, pictures: Sequence[Path], k: int = 10, *, exclude_itself: bool = False
) -> list[Answer]:
    """Find the pictures of a gallery that resemble each query most; see `Searcher`.

    Raises:
        BadImage: A query cannot be read.
        StoreError: There is no gallery, or it is damaged.
        VectorError: `k` is below 1.
    """
    check_num_hits(k)
    return Searcher(gallery)(pictures, k, exclude_itself=exclude_itself)
