"""Qdrant's engine in this process, on a folder: package qdrant-edge-py."""

# The package marks its constructors' arguments with types it does not export.
# pyright: reportPrivateImportUsage=false

import weakref
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from threading import RLock
from time import monotonic, sleep
from typing import ClassVar, TypeVar, cast
from weakref import WeakValueDictionary

import numpy as np

from regraft.errors import MissingExtra, RegraftError, StoreError
from regraft.files import put, remove
from regraft.retrieval.store.lease import WriterLease
from regraft.retrieval.store.protocol import Capabilities
from regraft.retrieval.store.qdrant_engine import Filter, Point

try:
    import qdrant_edge as edge
except ImportError as error:
    raise MissingExtra.of("keeping a gallery in Qdrant", "qdrant") from error

Answer = TypeVar("Answer")

# A segment above the first size gets a graph, and is searched through it above the second. Qdrant's own
# 10,000 KB are for servers with many collections.
INDEXED_FROM_KB, WALKED_FROM_KB = 2_000, 2_000
IS_TAKEN = "WouldBlock"  # in the words of the engine for a folder that another process has open
IS_AT_ODDS = "Incompatible configs"
POLL_S = 0.05
IN_SIGHT = 100  # points that a walk through the graph keeps in sight


class _Shard:
    """A folder of points, loaded at most once in a process, as the engine demands."""

    _all: ClassVar[WeakValueDictionary[Path, "_Shard"]] = WeakValueDictionary()

    def __init__(self, folder: Path) -> None:
        self.turn = RLock()
        self._folder = folder
        self._config = folder / "edge_config.json"
        self._loaded: list[edge.EdgeShard] = []
        weakref.finalize(self, _close_all, self._loaded)

    @classmethod
    def of(cls, folder: Path) -> "_Shard":
        """The one of a folder."""
        return cls._all.setdefault(folder.resolve(), cls(folder))

    def opened(self, wait_s: float, config: edge.EdgeConfig | None) -> edge.EdgeShard:
        """The shard, once no other process has it.

        Raises:
            StoreError: Another process kept it for longer than `wait_s`.
        """
        until = monotonic() + wait_s
        while not self._loaded:
            try:
                self._loaded.append(edge.EdgeShard.load(str(self._folder), config))
            # The engine has no exception of its own: everything it raises is a plain Exception.
            except Exception as error:
                if IS_AT_ODDS in str(error) and self._config.exists():
                    # The death of a process while vectors got another name can leave this file behind the
                    # vectors themselves, and the engine then refuses both (0.9.0). It can do without.
                    self._config.unlink()
                    continue
                if IS_TAKEN not in str(error):
                    raise
                if monotonic() >= until:
                    raise StoreError(
                        f"{self._folder.parent} is open in another process; waited {wait_s:g} s for it.",
                        hint="Qdrant's embedded engine serves one process at a time. Let that one finish.",
                    ) from error
                sleep(POLL_S)
        return self._loaded[0]

    def close(self) -> None:
        """Let other processes have it."""
        _close_all(self._loaded)


def _close_all(shards: list[edge.EdgeShard]) -> None:
    while shards:
        shards.pop().close()


class EdgeEngine:
    """An `Engine` on a folder, which belongs to one process while it is open, its readers included.

    All engines of a process on one folder are the same. What was written is in the engine's log on return:
    the death of the process loses nothing of it.

    Args:
        path: The gallery's folder; made by the first `put`.
        wait_s: Seconds to wait for another process to let go of it.

    Raises:
        StoreError: `path` is a file.
    """

    capabilities = Capabilities(
        atomic_fill=True,
        several_writers=False,
        opens_online=True,
        rollback="serve the space before",
    )

    def __init__(self, path: str | Path, *, wait_s: float = 10.0) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise StoreError(f"{self.path} is a file; expected a gallery's folder.")
        self._wait_s = wait_s
        self._folder = self.path / "shard"
        self._shared = _Shard.of(self._folder)

    @property
    def place(self) -> str:
        """The folder."""
        return str(self.path)

    @property
    def turn(self) -> AbstractContextManager[object]:
        """The right to call this engine, for one thread at a time, which may take it again."""
        return self._shared.turn

    def make(self, vectors: Mapping[str, int], field: str, points: Sequence[Point]) -> None:
        """Start with some points; see `Engine.make`. The folder is there with all of them, or not at all."""
        draft = self.path / "shard.draft"
        with WriterLease(self.path, wait_s=self._wait_s).held(), self._translated("written"):
            if self._folder.exists():
                raise StoreError(f"{self._folder} was made by another process meanwhile.", hint="Try again.")
            remove(draft)  # what a process left that died here
            draft.mkdir()
            shard = edge.EdgeShard.create(str(draft), edge.EdgeConfig(vectors=_params(vectors)))
            shard.update(_field_index(field))
            shard.update(_upsert(points))
            shard.flush()
            shard.close()
            put(draft, self._folder)

    def write(self, points: Sequence[Point]) -> None:
        """Put points in the place of those with their ids, in one commit."""
        self._update(_upsert(points))

    def remove(self, ids: Sequence[str]) -> None:
        """Delete points that are there, in one commit."""
        self._update(edge.UpdateOperation.delete_points(list(ids)))

    def read(self, ids: Sequence[str]) -> list[Point]:
        """Read the payload of those points that are there."""
        found = self._ask(lambda shard: shard.retrieve(list(ids), with_payload=True, with_vector=False), [])
        return [_point(each) for each in found]

    def walk(self, chosen: Filter, after: str | None, num_points: int) -> tuple[list[Point], str | None]:
        """Read a page of payloads in the order of their ids, and where the next page begins."""
        request = edge.ScrollRequest(
            offset=after, limit=num_points, filter=_filter(chosen), with_payload=True, with_vector=False
        )
        found, following = self._ask(lambda shard: shard.scroll(request), ([], None))
        return [_point(each) for each in found], None if following is None else str(following)

    def count(self, chosen: Filter) -> int:
        """Count points."""
        return self._ask(lambda shard: shard.count(edge.CountRequest(filter=_filter(chosen))), 0)

    def nearest(
        self, name: str, query: np.ndarray, num_points: int, *, exact: bool
    ) -> list[tuple[str, float]]:
        """Ids and cosines of the points nearest to a query; see `Engine.nearest`."""
        request = edge.QueryRequest(
            limit=num_points,
            query=edge.Query.Nearest(cast(list[float], query), using=name),
            params=edge.SearchParams(exact=exact, hnsw_ef=max(IN_SIGHT, num_points)),
        )
        return self._ask(lambda shard: [(str(hit.id), hit.score) for hit in shard.query(request)], [])

    def open_field(self, name: str) -> None:
        """Make a field quick to filter by."""
        self._update(_field_index(name))

    def open_vector(self, name: str, dimension: int) -> None:
        """Make room for vectors of another name, forgetting any that had it."""
        self.close_vector(name)
        self._update(edge.UpdateOperation.create_dense_vector(name, dimension, edge.Distance.Cosine))

    def close_vector(self, name: str) -> None:
        """Forget the vectors of a name."""
        self._update(edge.UpdateOperation.delete_vector_name(name))

    def close_fields(self, chosen: Filter, names: Sequence[str]) -> None:
        """Forget some fields of points."""
        self._update(edge.UpdateOperation.delete_payload_by_filter(_filter(chosen), list(names)))

    def index(self, vectors: Mapping[str, int], neighbours: int, build_candidates: int) -> None:
        """Build the graph of every vector, or bring it up to date."""
        graph = edge.HnswIndexConfig(neighbours, build_candidates, WALKED_FROM_KB)
        optimizers = edge.EdgeOptimizersConfig(indexing_threshold=INDEXED_FROM_KB)
        config = edge.EdgeConfig(vectors=_params(vectors), hnsw_config=graph, optimizers=optimizers)
        with self._translated("indexed"):
            self.close()  # the settings of a graph are read when a shard is loaded
            self._open(config)
        self.tidy()

    def tidy(self) -> None:
        """Bring the graphs up to date; the engine mends where much has changed, and keeps the rest."""
        with self._translated("tidied"):
            shard = self._open()
            if shard is not None:
                shard.optimize()
                shard.flush()

    def close(self) -> None:
        """Let go of the folder; a later call takes it again."""
        self._shared.close()

    def _open(self, config: edge.EdgeConfig | None = None) -> edge.EdgeShard | None:
        """The shard; `None` if it was never made."""
        return self._shared.opened(self._wait_s, config) if self._folder.exists() else None

    def _ask(self, question: Callable[[edge.EdgeShard], Answer], of_nothing: Answer) -> Answer:
        with self._translated("read"):
            shard = self._open()
            return of_nothing if shard is None else question(shard)

    def _update(self, operation: edge.UpdateOperation) -> None:
        with self._translated("written"):
            shard = self._open()
            if shard is None:
                raise StoreError(f"{self.path} holds no gallery yet; expected at least one put before.")
            shard.update(operation)

    @contextmanager
    def _translated(self, done: str) -> Generator[None]:
        try:
            yield
        except RegraftError:
            raise
        # The engine has no exception of its own: everything it raises is a plain Exception.
        except Exception as error:
            raise StoreError(
                f"Gallery {self.path} cannot be {done}: {error}",
                hint="Try again; if it stays, restore the folder from a copy, or fill another gallery.",
            ) from error


def _params(vectors: Mapping[str, int]) -> dict[str, edge.EdgeVectorParams]:
    return {
        name: edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Cosine)
        for name, dimension in vectors.items()
    }


def _field_index(name: str) -> edge.UpdateOperation:
    return edge.UpdateOperation.create_field_index(name, edge.PayloadSchemaType.Keyword)


def _upsert(points: Sequence[Point]) -> edge.UpdateOperation:
    return edge.UpdateOperation.upsert_points(
        [edge.Point(point.id, _vectors(point), point.payload) for point in points]
    )


def _vectors(point: Point) -> "dict[str, edge.NamedVector]":
    """The package takes arrays, and faster than lists, though its types do not say so."""
    return cast("dict[str, edge.NamedVector]", dict(point.vectors))


def _filter(chosen: Filter) -> edge.Filter:
    must = [edge.FieldCondition(key=chosen.field, match=edge.MatchAny(list(chosen.any_of)))]
    without = [] if chosen.without is None else [edge.FieldCondition(key=chosen.without, is_empty=False)]
    return edge.Filter(must=list(must), must_not=list(without))


def _point(record: edge.Record) -> Point:
    return Point(str(record.id), record.payload or {})
