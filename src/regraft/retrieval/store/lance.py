"""A gallery in a folder, on embedded LanceDB. The default."""

# pyarrow has no type information, so its tables are unknown to pyright wherever they are passed.
# pyright: reportUnknownParameterType=false

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
from jaxtyping import Float
from lancedb.table import Table

from regraft.errors import StoreError
from regraft.retrieval.store import rows
from regraft.retrieval.store.checks import (
    all_of,
    check_batch_rows,
    check_closable,
    check_complete,
    check_layout,
    check_opens,
    check_servable,
    check_tidied,
    checked_fill,
    checked_queries,
    checked_records,
    open_layout,
)
from regraft.retrieval.store.lance_carry import carry_over
from regraft.retrieval.store.lance_errors import translated
from regraft.retrieval.store.lance_index import bring_up, build
from regraft.retrieval.store.lance_open import TABLE, connected, open_table
from regraft.retrieval.store.lance_slots import SERVED_MARK, Slot, new_schema
from regraft.retrieval.store.lance_snapshot import Snapshot, parts_of
from regraft.retrieval.store.lance_tags import remove_idle_tags, remove_tags, restore_tag, set_tag
from regraft.retrieval.store.lease import WriterLease
from regraft.retrieval.store.protocol import Capabilities, Hits, Layout, Origin, Records

KEPT_S = 300.0
"""Each merge writes most of a gallery anew: replaced versions that stay long take many times its room."""


class LanceStore:
    """A `VectorStore` that survives its process, with any number of readers and one writer at a time.

    Every `put`, `fill` and `serve` is one commit: after a crash it is there whole or not at all. (The first
    `put` commits an empty gallery of its space before the rows, so that data without any commit can only be
    damage.) Readers see the commits of other processes at their next call, and each call reads one version.
    Without an index a search is exact and reads every vector; see `index`.

    Every call raises StoreError where the gallery's files are missing, damaged or cannot be written.

    Each `put` or `fill` leaves a file, and both reading and writing slow down with their number (`put` by
    about 0.07 ms a file where it was measured): call `tidy` after a few hundred.

    Args:
        path: The gallery's folder; made by the first `put`.
        lease_wait_s: Seconds to wait for another writer.

    Raises:
        StoreError: `path` is a file.
    """

    capabilities = Capabilities(
        atomic_fill=True,
        several_writers=False,
        opens_online=True,
        rollback="serve the space before; until tidied also restore all rows as the new space found them",
    )

    def __init__(self, path: str | Path, *, lease_wait_s: float = 10.0) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise StoreError(f"{self.path} is a file; expected a gallery's folder.")
        self._lease = WriterLease(self.path, wait_s=lease_wait_s)
        self._cached: Table | None = None
        self._pinned: Snapshot | None = None

    @property
    def layout(self) -> Layout | None:
        """The space that is served; `None` before the first `put`."""
        snapshot = self._snapshot()
        return None if snapshot is None else snapshot.slots.served.layout

    @property
    def spaces(self) -> tuple[Layout, ...]:
        """Every open space, the served one first."""
        snapshot = self._snapshot()
        return () if snapshot is None else snapshot.slots.layouts

    @property
    def num_indexed(self) -> int | None:
        """Rows that the index covers; `None` without an index, where a search reads every row."""
        snapshot = self._snapshot()
        if snapshot is None:
            return None
        with self._translated("read"):
            return snapshot.num_indexed(snapshot.slots.served)

    def writing(self) -> AbstractContextManager[None]:
        """Keep other writers out for a whole block of calls; each call alone takes the lease for itself.

        Raises:
            StoreError: Another writer kept the lease for too long.
        """
        return self._lease.held()

    def put(
        self,
        ids: Sequence[str],
        vectors: Float[np.ndarray, "n d"],
        *,
        space: str,
        origin: Origin = "native",
        sources: Sequence[str | None] | None = None,
    ) -> int:
        """Write rows, replacing those whose id is present; see `VectorStore.put`."""
        records = checked_records(
            ids, vectors, space=space, origin=origin, sources=sources, layout=self.layout
        )
        if len(records) == 0:
            return 0
        with self.writing(), self._translated("written"):
            dimension = records.vectors.shape[1]
            if self._table() is None:
                connected(self.path).create_table(TABLE, schema=new_schema(Layout(space, dimension)))
            # Another writer may have made the gallery, or switched it, since the first look.
            check_layout(space, dimension, self.layout)
            table, now = self._writable()
            merge = table.merge_insert("id").when_matched_update_all().when_not_matched_insert_all()
            new = rows.put_rows(records, now.slots.served, table.schema)
            # "null" lets pass the vectors that are absent from other spaces; none that is present is bad.
            result = merge.execute(new, on_bad_vectors="null")
        rows.confirm(result.num_inserted_rows + result.num_updated_rows, expected=len(records))
        return len(records)

    def fill(
        self,
        ids: Sequence[str],
        vectors: Float[np.ndarray, "n d"],
        *,
        space: str,
        origin: Origin,
        seen: Records | None = None,
    ) -> int:
        """Set the vectors of rows that are present in one open space; see `VectorStore.fill`.

        Rows are read and written whole: LanceDB can merge two columns alone, but reads every row of the
        gallery for it, which took 15 times as long at 400,000 rows of 256 numbers.
        """
        _, stored = checked_fill(ids, vectors, space=space, origin=origin, spaces=self.spaces, seen=seen)
        if not ids:
            return 0
        with self.writing(), self._translated("written"):
            table, now = self._writable()
            # Another writer may have closed the space since the first look, or opened another of its name.
            check_layout(space, stored.shape[1], open_layout(space, now.slots.layouts))
            slot = now.present(space)
            whole = now.rows(ids, table.schema.names)
            if seen is not None:
                whole = now.unchanged(whole, seen, slot)
            if len(whole) == 0:
                return 0
            merge = table.merge_insert("id").when_matched_update_all()
            # "null" lets pass the vectors that are absent from other spaces; none that is present is bad.
            result = merge.execute(rows.filled_rows(whole, ids, stored, origin, slot), on_bad_vectors="null")
        rows.confirm(result.num_updated_rows, expected=len(whole))
        return len(whole)

    def get(self, ids: Sequence[str], *, space: str | None = None) -> Records:
        """Read rows by id, in the order asked; see `VectorStore.get`."""
        return all_of(ids, self.find(ids, space=space))

    def find(self, ids: Sequence[str], *, space: str | None = None) -> Records:
        """Read those of some rows that are present and have a vector in a space; see `VectorStore.find`."""
        present = self._slot(space)
        if present is None:
            return Records.empty(0)
        snapshot, slot = present
        with self._translated("read"):
            return snapshot.find(ids, slot)

    def search(self, queries: Float[np.ndarray, "q d"], k: int, *, space: str) -> Hits:
        """Find the `k` rows of highest cosine for each query; see `VectorStore.search`.

        With an index the rows found are almost always the best ones; their scores are exact either way.
        """
        snapshot = self._snapshot()
        if snapshot is None:
            return Hits.empty(len(checked_queries(queries, k, space=space, layout=None)))
        with self._translated("searched"):
            return snapshot.search(queries, k, space=space)

    def scan(
        self,
        *,
        space: str | None = None,
        origin: Origin | None = None,
        lacking: str | None = None,
        batch_rows: int = 4096,
    ) -> Iterator[Records]:
        """Stream the rows that are present now; see `VectorStore.scan`.

        Holds one batch and eight bytes a row in memory. One that takes longer than `tidy` keeps replaced
        versions fails.
        """
        check_batch_rows(batch_rows)
        present = self._slot(space)
        if present is None:
            return iter(())
        snapshot, slot = present
        where = snapshot.chosen(slot, origin, lacking)
        batches = snapshot.batches(rows.columns_of(slot), where, batch_rows)
        return (rows.records_from(batch, slot) for batch in batches)

    def count(
        self, *, space: str | None = None, origin: Origin | None = None, lacking: str | None = None
    ) -> int:
        """Count the rows that `scan` would yield."""
        present = self._slot(space)
        if present is None:
            return 0
        snapshot, slot = present
        with self._translated("read"):
            return snapshot.count(snapshot.chosen(slot, origin, lacking))

    def drop(self, ids: Sequence[str]) -> int:
        """Remove rows; see `VectorStore.drop`."""
        if self._table() is None or not ids:
            return 0
        with self.writing(), self._translated("written"):
            table = self._present_table()
            num_before = table.count_rows()
            for part in parts_of(list(ids)):
                table.delete(rows.any_of(part))
            return num_before - table.count_rows()

    def open_space(self, layout: Layout) -> None:
        """Make room for the vectors of another space; see `VectorStore.open_space`.

        The version before is kept for `restore` until the gallery is tidied, or the space or the one before
        is closed, unless this one is packed.
        """
        if not check_opens(layout, self.spaces):
            return
        with self.writing(), self._translated("written"):
            table, now = self._writable()
            if check_opens(layout, now.slots.layouts):
                slot = now.slots.next(layout)
                if not layout.packed:
                    set_tag(table, slot)
                table.add_columns(pa.schema(slot.fields))

    def serve(self, space: str) -> None:
        """Answer in `space` from now on, in one commit; see `VectorStore.serve`."""
        check_servable(space, self.spaces)
        with self.writing(), self._translated("written"):
            table, now = self._writable()
            check_servable(space, now.slots.layouts)
            slot = now.present(space)
            if slot != now.slots.served:
                check_complete(space, now.ids(rows.lacking(slot)))
                table.update_field_metadata({"path": "id", "metadata": {SERVED_MARK: slot.vector}})

    def close_space(self, space: str) -> None:
        """Forget every vector of a space that is not served; see `VectorStore.close_space`."""
        check_closable(space, self.layout)
        if self._table() is None:
            return
        with self.writing(), self._translated("written"):
            table, now = self._writable()
            check_closable(space, now.slots.served.layout)
            slot = now.slots.of(space)
            if slot is not None:
                table.drop_columns([slot.vector, slot.origin])  # and their index, in the same commit
            remove_idle_tags(table, self._writable()[1].slots)

    def restore(self, space: str) -> None:
        """Bring back all rows as they were before `space` was opened, undoing every write since.

        Rolling back by `serve` keeps what was added and dropped since; this does not. It can be done until
        the gallery is tidied: while that state is kept, nothing that was replaced since can be deleted.

        Raises:
            SpaceMismatch: The space is not open.
            StoreError: The state before is not kept any more, or another writer is at work.
        """
        open_layout(space, self.spaces)
        with self.writing(), self._translated("restored"):
            _, now = self._writable()
            open_layout(space, now.slots.layouts)
            restore_tag(connected(self.path).open_table(TABLE), now.present(space), self.path)

    def index(self, *, space: str | None = None, num_partitions: int | None = None) -> None:
        """Build the vector index, or build it anew, so that a search no longer reads every vector.

        Inverted lists of whole vectors: at 45,000 rows of 256 numbers they took a seventieth of the CPU time
        of a graph index (IVF_HNSW_SQ, 28 s) to build and 1.1 to 1.4 times the graph's to answer, and an
        upgrade, which replaces every row, must build them anew. The id has no index of its own: one made
        `put` six times slower after 200 of them, and reading by id no faster.

        Rows put later, or filled in whichever space, are found without it, more slowly; `tidy` takes them in.

        Args:
            space: Whose vectors to index; `None` for the served space. An index built before `serve` is there
                from the first query.
            num_partitions: Number of lists, of which LanceDB reads about 20 a query; `None` for lists of
                about 8,000 rows, so that a small gallery is still searched whole. More lists answer
                sooner and miss more, above all where the vectors do not cluster.

        Raises:
            SpaceMismatch: The space is not open, or is packed.
            StoreError: The gallery is empty, or another writer is at work.
        """
        with self.writing(), self._translated("indexed"):
            table, now = self._writable()
            if table.count_rows() == 0:
                raise StoreError(f"{self.path} holds no rows; expected some to index.")
            layout = check_servable(space or now.slots.served.layout.space, now.slots.layouts)
            build(table, now.present(layout.space), num_partitions)

    def tidy(self, *, space: str | None = None, keep_s: float = KEPT_S) -> None:
        """Merge the files that many writes leave, delete replaced versions, and bring the index up to date.

        The index of `space` is built anew, in as many lists as LanceDB chooses, if half of its rows are
        others than those it was built of. What `restore` would need is kept no longer.

        Args:
            space: In which searches are to be quick; `None` for the served space.
            keep_s: Seconds for which replaced versions stay on disk, above 0. A scan that began before, here
                or in another process, fails.

        Raises:
            SpaceMismatch: The space is not open, or is packed.
            StoreError: `keep_s` is not above 0, or another writer is at work.
        """
        if not keep_s > 0:
            raise StoreError(f"keep_s is {keep_s:g}; expected more than 0, or scans under way would fail.")
        if check_tidied(space, self.spaces) is None:
            return
        with self.writing(), self._translated("tidied"):
            table, now = self._writable()
            # Another writer may have closed the space since the first look.
            layout = check_servable(space or now.slots.served.layout.space, now.slots.layouts)
            remove_tags(table)
            bring_up(table, now, now.present(layout.space))
            table.optimize(cleanup_older_than=timedelta(seconds=keep_s))

    def _snapshot(self) -> Snapshot | None:
        """The gallery at its latest version, or `None` if nothing was ever put."""
        table = self._table()
        if table is None:
            return None
        with self._translated("read"):
            version = table.version
            if self._pinned is None or self._pinned.version != version:
                pinned = connected(self.path).open_table(TABLE)
                pinned.checkout(version)
                self._pinned = Snapshot(pinned, self.path)
            return self._pinned

    def _slot(self, space: str | None) -> tuple[Snapshot, Slot] | None:
        """Where an open space is at the latest version, the served one if it is `None`."""
        snapshot = self._snapshot()
        slot = None if snapshot is None else snapshot.slot(space)
        return None if snapshot is None or slot is None else (snapshot, slot)

    def _writable(self) -> tuple[Table, Snapshot]:
        """The table in the present format and what is in it; for the holder of the lease."""
        table = self._present_table()
        carry_over(table)
        snapshot = self._snapshot()
        assert snapshot is not None, "there is a table"
        return table, snapshot

    def _table(self) -> Table | None:
        """The table, which follows the latest version, or `None` if nothing was ever put."""
        if self._cached is None:
            with self._translated("read"):
                self._cached = open_table(self.path)
        return self._cached

    def _present_table(self) -> Table:
        table = self._table()
        if table is None:
            raise StoreError(f"{self.path} holds no gallery yet; expected at least one put before.")
        return table

    def _translated(self, done: str) -> AbstractContextManager[None]:
        return translated(self.path, done)
