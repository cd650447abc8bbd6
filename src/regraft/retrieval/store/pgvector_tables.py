"""The tables of a gallery in PostgreSQL.

Each space has a table of its own, beside one of the items. As columns of one table, every vector set would
copy a row's vectors in all spaces, and enter the row anew into the index of the space that is served; and a
scan under way would keep `ALTER TABLE` from opening another space.
"""

from dataclasses import dataclass

from regraft.errors import StoreError
from regraft.retrieval.store.pgvector_server import Address, Connection, DatabaseError, code_of
from regraft.retrieval.store.protocol import Layout

OLDEST_PGVECTOR = (0, 8)
MAX_INDEXED_DIMENSION = 2000
MAX_HALF_DIMENSION = 4000
IS_LOCKED, IS_NO_TABLE = "55P03", "42P01"

# One gallery is made at a time on a whole server: two would collide in CREATE EXTENSION.
LOCK_CREATION = "SELECT pg_advisory_xact_lock(hashtext('regraft'))"


@dataclass(frozen=True)
class Space:
    """An open space and its table."""

    number: int
    layout: Layout
    indexed: bool
    table: str
    """Quoted for SQL."""

    @property
    def is_indexable(self) -> bool:
        """Whether pgvector can index its vectors."""
        return not self.layout.packed and self.layout.dimension <= MAX_HALF_DIMENSION

    @property
    def indexed_value(self) -> str:
        """What the index holds of a vector: its halves where whole numbers are too many for an index."""
        if self.layout.dimension <= MAX_INDEXED_DIMENSION:
            return "vector"
        return f"(l2_normalize(vector)::halfvec({self.layout.dimension}))"

    @property
    def indexed_query(self) -> str:
        """The parameter `query` in the form of `indexed_value`."""
        if self.layout.dimension <= MAX_INDEXED_DIMENSION:
            return "CAST(:query AS vector)"
        return f"CAST(l2_normalize(CAST(:query AS vector)) AS halfvec({self.layout.dimension}))"


class Tables:
    """The names of a gallery's tables, and the statements that make, list and remove them."""

    def __init__(self, address: Address) -> None:
        self.address = address
        self.spaces = f"{address.schema}.spaces"
        self.items = f"{address.schema}.items"
        self._known = False

    def listed(self, link: Connection) -> tuple[Space, ...]:
        """The open spaces, the served one first; none if the gallery has not been made."""
        if not self._known:
            found = link.run("SELECT to_regclass(:name) IS NOT NULL", name=self.spaces)
            self._known = bool(found and found[0][0])
        if not self._known:
            return ()
        rows = link.run(
            f"SELECT number, space, dimension, packed, indexed FROM {self.spaces} "
            "ORDER BY served DESC, number"
        )
        return tuple(
            Space(number, Layout(space.decode(), dimension, packed), indexed, self._table(number))
            for number, space, dimension, packed, indexed in rows or []
        )

    def locked(self, link: Connection, mode: str) -> tuple[Space, ...]:
        """The open spaces, as they stay until the transaction ends.

        Args:
            link: In a transaction.
            mode: SHARE to write vectors, beside others who do; EXCLUSIVE to change the spaces, alone. Neither
                stops a reader.
        """
        if self.listed(link):
            link.run(f"LOCK TABLE {self.spaces} IN {mode} MODE")
        return self.listed(link)

    def create(self, link: Connection, layout: Layout) -> tuple[Space, ...]:
        """Make the gallery, unless another writer just has, and list its spaces."""
        link.run(LOCK_CREATION)
        link.run("CREATE EXTENSION IF NOT EXISTS vector")
        check_version(link)
        link.run(f"CREATE SCHEMA IF NOT EXISTS {self.address.schema}")
        link.run(
            f"CREATE TABLE IF NOT EXISTS {self.spaces} "
            "(number integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, space bytea UNIQUE NOT NULL, "
            "dimension integer NOT NULL, packed boolean NOT NULL, "
            "served boolean NOT NULL, indexed boolean NOT NULL DEFAULT false)"
        )
        link.run(
            f"CREATE TABLE IF NOT EXISTS {self.items} "
            "(item bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, id bytea UNIQUE NOT NULL, source bytea)"
        )
        spaces = self.locked(link, "SHARE")
        return spaces or (self.add(link, layout, served=True),)

    def add(self, link: Connection, layout: Layout, *, served: bool = False) -> Space:
        """Make a table for the vectors of a space."""
        rows = link.run(
            f"INSERT INTO {self.spaces} (space, dimension, packed, served) "
            "VALUES (:space, :dimension, :packed, :served) RETURNING number",
            space=layout.space.encode(),
            dimension=layout.dimension,
            packed=layout.packed,
            served=served,
        )
        number = rows[0][0] if rows else 0
        kind = "bytea" if layout.packed else f"vector({layout.dimension})"
        link.run(
            f"CREATE TABLE {self._table(number)} "
            f"(item bigint PRIMARY KEY, vector {kind} NOT NULL, origin text NOT NULL)"
        )
        return Space(number, layout, False, self._table(number))

    def index(self, link: Connection, space: Space, options: str, memory_mb: int | None = None) -> None:
        """Build the index of a space's table, in the place of one that is there.

        Args:
            link: In a transaction.
            space: Whose.
            options: Of the index, as SQL.
            memory_mb: What the server may use; `None` for its own choice.

        Raises:
            StoreError: The space has more dimensions than pgvector can index.
        """
        if not space.is_indexable:
            raise StoreError(
                f"Vectors have {space.layout.dimension} dimensions; "
                f"pgvector indexes at most {MAX_HALF_DIMENSION}.",
                hint="A search without an index is exact.",
            )
        link.run(f"DROP INDEX IF EXISTS {self._index(space)}")
        if memory_mb is not None:
            link.run(f"SET LOCAL maintenance_work_mem = '{memory_mb:d}MB'")
        kind = "vector" if space.indexed_value == "vector" else "halfvec"
        link.run(
            f"CREATE INDEX index_{space.number} ON {space.table} USING hnsw "
            f"({space.indexed_value} {kind}_cosine_ops) WITH ({options})"
        )
        link.run(f"UPDATE {self.spaces} SET indexed = true WHERE number = :number", number=space.number)

    def index_options(self, link: Connection, space: Space) -> str:
        """The options of a space's index, as SQL."""
        rows = link.run(
            "SELECT array_to_string(reloptions, ', ') FROM pg_class WHERE oid = CAST(:name AS regclass)",
            name=self._index(space),
        )
        return rows[0][0] if rows else ""

    def sweep(self, link: Connection) -> None:
        """Drop the tables of closed spaces; one that a reader still has open is left for the next time.

        Args:
            link: In a transaction that does nothing else, for it may fail.
        """
        rows = link.run(
            "SELECT c.oid::regclass::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace "
            "WHERE n.nspname = :schema AND c.relkind = 'r' AND c.relname ~ '^vectors_[0-9]+$' "
            f"AND substr(c.relname, 9)::integer NOT IN (SELECT number FROM {self.spaces})",
            schema=self.address.schema_name,
        )
        for (table,) in rows or []:
            link.run("SAVEPOINT before")
            try:
                link.run(f"LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT")
            except DatabaseError as error:
                if code_of(error) != IS_LOCKED:
                    raise
                link.run("ROLLBACK TO SAVEPOINT before")
            else:
                link.run(f"DROP TABLE {table}")

    def _index(self, space: Space) -> str:
        return f"{self.address.schema}.index_{space.number}"

    def _table(self, number: int) -> str:
        return f"{self.address.schema}.vectors_{number}"


def check_version(link: Connection) -> None:
    """Raise StoreError unless the database's pgvector is recent enough."""
    rows = link.run("SELECT extversion FROM pg_extension WHERE extname = 'vector'")
    found = rows[0][0] if rows else "0"
    if tuple(map(int, found.split(".")[:2])) < OLDEST_PGVECTOR:
        raise StoreError(
            f"The database has pgvector {found}; expected {'.'.join(map(str, OLDEST_PGVECTOR))} or later.",
            hint="ALTER EXTENSION vector UPDATE.",
        )
