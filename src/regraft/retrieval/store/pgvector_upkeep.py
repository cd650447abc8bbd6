"""What replaced and removed rows leave in PostgreSQL, and what becomes of it."""

from regraft.retrieval.store.pgvector_server import Connection
from regraft.retrieval.store.pgvector_tables import Space, Tables

# VACUUM mends the whole graph of an index around the rows that it removes, however few: with 14,000 of 17,000
# removed it took 21 s. So it waits until there are as many as PostgreSQL itself waits for.
MAX_DEAD_SHARE = 0.2


def clean(link: Connection, tables: Tables, spaces: tuple[Space, ...]) -> None:
    """Count what is in a gallery's tables, for the server's plans, and remove what is dead where it is much.

    Args:
        link: Outside of a transaction, as VACUUM must be.
        tables: The gallery's.
        spaces: Those that are open.
    """
    for table in (tables.items, *(space.table for space in spaces)):
        link.run(f"ANALYZE {table}")
        if _dead_share(link, table) > MAX_DEAD_SHARE:
            link.run(f"VACUUM {table}")


def _dead_share(link: Connection, table: str) -> float:
    """Rows that are dead for each that is not, as the last ANALYZE found."""
    rows = link.run(
        "SELECT n_dead_tup / greatest(n_live_tup, 1)::float FROM pg_stat_all_tables "
        "WHERE relid = CAST(:name AS regclass)",
        name=table,
    )
    return rows[0][0] if rows else 0.0
