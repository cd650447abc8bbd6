"""Carry a gallery that an earlier release wrote over to the present format."""

# pyarrow has no type information, so its tables are unknown to pyright wherever they are passed.
# pyright: reportUnknownParameterType=false

import pyarrow as pa
from lancedb.table import Table

from regraft.retrieval.store.lance_slots import FORMAT, FORMAT_MARK, SERVED_MARK

SPACE_OF_EACH_ROW = "space"


def carry_over(table: Table) -> None:
    """Make a table of format 1 one of format 2, reading and writing none of its rows.

    Three commits. The second is the change of format: before it the gallery is one of format 1 that may lack
    vectors, as none does; after it one of format 2 with a column too many, which no reader looks at. Whatever
    a kill left is done the next time.
    """
    schema = table.schema
    if _is_marked_as_before(schema):
        optional = [{"path": name, "nullable": True} for name in ("vector", "origin")]
        table.alter_columns(*optional)  # pyright: ignore[reportArgumentType] - it says dict[str, str]
        table.update_field_metadata(
            {"path": "id", "metadata": {SERVED_MARK: "vector"}},
            {"path": "vector", "metadata": {FORMAT_MARK: FORMAT}},
        )
    if SPACE_OF_EACH_ROW in schema.names:
        table.drop_columns([SPACE_OF_EACH_ROW])


def _is_marked_as_before(schema: pa.Schema) -> bool:
    return "vector" in schema.names and schema.field("vector").metadata[FORMAT_MARK.encode()] == b"1"
