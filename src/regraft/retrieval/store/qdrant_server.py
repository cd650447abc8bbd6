"""Qdrant's engine on a server, over REST: package qdrant-client.

A server takes 32 MB a request, so a call of many rows becomes several commands. Each row is still written
whole, and what was acknowledged is there; but of a call that was interrupted a part may be.
"""

import os
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager
from threading import RLock
from typing import cast
from urllib.parse import urlsplit

import numpy as np

from regraft.errors import MissingExtra, RegraftError, StoreError
from regraft.retrieval.store.protocol import Capabilities
from regraft.retrieval.store.qdrant_engine import Filter, Point

try:
    from qdrant_client import QdrantClient, models
    from qdrant_client.http.exceptions import ApiException
except ImportError as error:
    raise MissingExtra.of("keeping a gallery in Qdrant", "qdrant") from error

FORM = "qdrant+http://HOST:6333/COLLECTION"
POINTS_A_COMMAND = 256
IDS_A_REQUEST = 4096
WAIT_S = 60
IN_SIGHT = 100  # points that a walk through the graph keeps in sight


class ServerEngine:
    """An `Engine` that is a collection of a Qdrant server, 1.18 or later.

    The writer must be alone: a server has no lock for writers, and nothing here makes a second one wait. A
    `fill` reads rows and writes them back whole, so that of two writers one can undo what the other did to
    the same rows, or to the list of the spaces. During an upgrade nothing else may write.

    Nor has it snapshots for readers: a search while a `fill` of another process is under way may see a part
    of it, though only whole rows.

    Args:
        client: The way to the server.
        collection: Its name; made by the first `put`.
        place: Where that is, for messages.
    """

    capabilities = Capabilities(
        atomic_fill=False,
        several_writers=False,
        opens_online=True,
        rollback="serve the space before",
    )

    def __init__(self, client: QdrantClient, collection: str, *, place: str) -> None:
        self.place = place
        self.turn = RLock()
        self._client = client
        self._name = collection

    @classmethod
    def at(cls, url: str) -> "ServerEngine":
        """The collection that a URL names; nothing is asked of the server until the first call.

        The key of a server that wants one is taken from the environment's QDRANT_API_KEY.

        Raises:
            StoreError: The URL is not of the form `qdrant+http://HOST:6333/COLLECTION`, or `qdrant+https`.
        """
        parts = urlsplit(url)
        collection = parts.path.strip("/")
        known = parts.scheme in ("qdrant+http", "qdrant+https") and not (parts.query or parts.username)
        if not known or not parts.hostname or not collection or "/" in collection:
            raise StoreError(
                f"The gallery's URL has the scheme {parts.scheme!r} and the collection {collection!r}; "
                f"expected {FORM}.",
                hint="A server's key goes into the environment as QDRANT_API_KEY.",
            )
        server = f"{parts.scheme.removeprefix('qdrant+')}://{parts.netloc}"
        client = QdrantClient(
            url=server, api_key=os.environ.get("QDRANT_API_KEY"), timeout=WAIT_S, check_compatibility=False
        )
        return cls(client, collection, place=f"{server}/{collection}")

    def make(self, vectors: Mapping[str, int], field: str, points: Sequence[Point]) -> None:
        """Start with some points; see `Engine.make`. The collection is a gallery once the first is there."""
        with self._translated("written"):
            if self._is_made():
                if self._client.count(self._name).count:
                    raise StoreError(f"{self.place} holds points that Regraft did not write.")
                self._client.delete_collection(self._name)
            self._client.create_collection(self._name, _params(vectors))
        self.open_field(field)
        self.write(points)

    def write(self, points: Sequence[Point]) -> None:
        """Put points in the place of those with their ids, each whole."""
        with self._translated("written"):
            for start in range(0, len(points), POINTS_A_COMMAND):
                part = points[start : start + POINTS_A_COMMAND]
                self._client.upsert(self._name, [_struct(point) for point in part], wait=True)

    def remove(self, ids: Sequence[str]) -> None:
        """Delete points that are there."""
        with self._translated("written"):
            for start in range(0, len(ids), IDS_A_REQUEST):
                selected = models.PointIdsList(points=list(ids[start : start + IDS_A_REQUEST]))
                self._client.delete(self._name, selected, wait=True)

    def read(self, ids: Sequence[str]) -> list[Point]:
        """Read the payload of those points that are there."""
        with self._translated("read"):
            if not self._is_made():
                return []
            parts = (ids[start : start + IDS_A_REQUEST] for start in range(0, len(ids), IDS_A_REQUEST))
            return [
                _point(found)
                for part in parts
                for found in self._client.retrieve(self._name, list(part), with_payload=True)
            ]

    def walk(self, chosen: Filter, after: str | None, num_points: int) -> tuple[list[Point], str | None]:
        """Read a page of payloads in the order of their ids, and where the next page begins."""
        with self._translated("read"):
            found, following = self._client.scroll(
                self._name, _filter(chosen), limit=num_points, offset=after, with_payload=True
            )
            return [_point(each) for each in found], None if following is None else str(following)

    def count(self, chosen: Filter) -> int:
        """Count points."""
        with self._translated("read"):
            return self._client.count(self._name, _filter(chosen), exact=True).count

    def nearest(
        self, name: str, query: np.ndarray, num_points: int, *, exact: bool
    ) -> list[tuple[str, float]]:
        """Ids and cosines of the points nearest to a query; see `Engine.nearest`."""
        params = models.SearchParams(exact=exact, hnsw_ef=max(IN_SIGHT, num_points))
        with self._translated("searched"):
            found = self._client.query_points(
                self._name,
                query.tolist(),
                using=name,
                limit=num_points,
                search_params=params,
                with_payload=False,
            )
            return [(str(hit.id), hit.score) for hit in found.points]

    def open_field(self, name: str) -> None:
        """Make a field quick to filter by."""
        with self._translated("written"):
            keyword = models.PayloadSchemaType.KEYWORD
            self._client.create_payload_index(self._name, name, keyword, wait=True)

    def open_vector(self, name: str, dimension: int) -> None:
        """Make room for vectors of another name, forgetting any that had it."""
        self.close_vector(name)
        with self._translated("written"):
            dense = models.DenseVectorConfig(size=dimension, distance=models.Distance.COSINE)
            self._client.create_vector_name(self._name, name, models.DenseVectorNameConfig(dense=dense))

    def close_vector(self, name: str) -> None:
        """Forget the vectors of a name."""
        with self._translated("written"):
            known = self._client.get_collection(self._name).config.params.vectors
            if isinstance(known, dict) and name in known:
                self._client.delete_vector_name(self._name, name)

    def close_fields(self, chosen: Filter, names: Sequence[str]) -> None:
        """Forget some fields of points."""
        with self._translated("written"):
            selected = models.FilterSelector(filter=_filter(chosen))
            self._client.delete_payload(self._name, list(names), selected, wait=True)

    def index(self, vectors: Mapping[str, int], neighbours: int, build_candidates: int) -> None:
        """Have the server build the graph of every vector; it does so beside its other work."""
        with self._translated("indexed"):
            graph = models.HnswConfigDiff(m=neighbours, ef_construct=build_candidates)
            self._client.update_collection(self._name, hnsw_config=graph)

    def tidy(self) -> None:
        """The server keeps its graphs up to date by itself, beside its other work."""

    def close(self) -> None:
        """Nothing is held between calls."""

    def _is_made(self) -> bool:
        return self._client.collection_exists(self._name)

    @contextmanager
    def _translated(self, done: str) -> Generator[None]:
        try:
            yield
        except RegraftError:
            raise
        except (ApiException, ValueError) as error:
            raise StoreError(
                f"Gallery {self.place} cannot be {done}: {error}",
                hint="Is a Qdrant server, 1.18 or later, running there?",
            ) from error


def _params(vectors: Mapping[str, int]) -> dict[str, models.VectorParams]:
    return {
        name: models.VectorParams(size=dimension, distance=models.Distance.COSINE)
        for name, dimension in vectors.items()
    }


def _filter(chosen: Filter) -> models.Filter:
    must = models.FieldCondition(key=chosen.field, match=models.MatchAny(any=list(chosen.any_of)))
    if chosen.without is None:
        return models.Filter(must=[must])
    return models.Filter(must=[must], must_not=[models.FieldCondition(key=chosen.without, is_empty=False)])


def _struct(point: Point) -> models.PointStruct:
    vectors = {name: vector.tolist() for name, vector in point.vectors.items()}
    return models.PointStruct(id=point.id, payload=point.payload, vector=cast("models.VectorStruct", vectors))


def _point(record: models.Record) -> Point:
    return Point(str(record.id), record.payload or {})
