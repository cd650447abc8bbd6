"""Which gallery items answer which query, and which row is the query itself."""

from collections import Counter
from collections.abc import Hashable, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise

import numpy as np
from jaxtyping import Int, Int64

from regraft.errors import SampleError, ShapeError

Labels = Sequence[Hashable] | Int[np.ndarray, " _"]

NUM_NAMED = 3


@dataclass(frozen=True, eq=False)
class Relevance:
    """The answers wanted, in rows of a gallery.

    A query whose id is also the id of a gallery item never meets that item: it is left out by its id, not by
    a distance of zero, because in a half upgraded gallery the query's own row need not be the nearest.
    """

    query_ids: list[str]
    num_rows: int
    """Rows of the gallery."""
    own_row: Int64[np.ndarray, " q"]
    """The gallery row of the query itself; -1 if it is not there."""
    group: Int64[np.ndarray, " q"]
    """Queries of one group share their answers; a place in `groups`."""
    groups: list[Int64[np.ndarray, " _"]]
    """Rows of the relevant items, ascending; may hold a query's own row, which does not count."""

    @classmethod
    def by_labels(
        cls,
        query_ids: Sequence[str],
        gallery_ids: Sequence[str],
        query_labels: Labels,
        gallery_labels: Labels,
    ) -> "Relevance":
        """Every item that has the query's label is relevant.

        Raises:
            ShapeError: Not one label an id.
            SampleError: An id that is given twice.
        """
        wanted = _checked_labels("queries", query_ids, query_labels)
        names = {label: place for place, label in enumerate(dict.fromkeys(wanted))}
        there = _checked_labels("gallery", gallery_ids, gallery_labels)
        labels = np.array([names.get(label, -1) for label in there], np.int64)
        by_label = np.argsort(labels, kind="stable")
        edges = np.searchsorted(labels[by_label], np.arange(len(names) + 1))
        groups = [by_label[start:stop] for start, stop in pairwise(edges.tolist())]
        group = np.array([names[label] for label in wanted], np.int64)
        rows = _rows(gallery_ids)
        return cls(list(query_ids), len(gallery_ids), _find(query_ids, rows), group, groups)

    @classmethod
    def by_qrels(
        cls, query_ids: Sequence[str], gallery_ids: Sequence[str], qrels: Mapping[str, Set[str]]
    ) -> "Relevance":
        """The items named for each query are relevant; a query that `qrels` does not name has none.

        Raises:
            SampleError: An id that is given twice, or a relevant item that the gallery does not hold.
        """
        rows = _rows(gallery_ids)
        missing = [name for query in query_ids for name in sorted(qrels.get(query, ())) if name not in rows]
        if missing:
            raise SampleError(
                f"{len(missing)} relevant items are not in the gallery: {_named(missing)}; "
                "expected every one of them.",
                hint="Leave them out of the judgements if a smaller gallery is meant.",
            )
        groups = [
            np.sort(np.array([rows[name] for name in qrels.get(query, ())], np.int64)) for query in query_ids
        ]
        group = np.arange(len(query_ids))
        return cls(list(query_ids), len(gallery_ids), _find(query_ids, rows), group, groups)

    @cached_property
    def num_relevant(self) -> Int64[np.ndarray, " q"]:
        """How many items are relevant to each query, its own row not counted."""
        sizes = np.array([len(rows) for rows in self.groups], np.int64)
        counts = sizes[self.group] if len(sizes) > 0 else np.zeros(0, np.int64)
        own_counts = [
            own >= 0 and _contains(self.groups[group], own)
            for own, group in zip(self.own_row.tolist(), self.group.tolist(), strict=True)
        ]
        return counts - np.array(own_counts, np.int64)


def _contains(rows: Int64[np.ndarray, " r"], row: int) -> bool:
    place = np.searchsorted(rows, row)
    return bool(place < len(rows) and rows[place] == row)


def _checked_labels(name: str, ids: Sequence[str], labels: Labels) -> Sequence[Hashable]:
    if len(ids) != len(labels):
        raise ShapeError(f"The {name} got {len(ids)} ids and {len(labels)} labels; expected one an id.")
    return labels.tolist() if isinstance(labels, np.ndarray) else labels


def _rows(gallery_ids: Sequence[str]) -> dict[str, int]:
    rows = {name: row for row, name in enumerate(gallery_ids)}
    if len(rows) != len(gallery_ids):
        repeated = [name for name, times in Counter(gallery_ids).items() if times > 1]
        raise SampleError(
            f"{len(repeated)} gallery ids are given more than once: {_named(repeated)}; "
            "expected each id once."
        )
    return rows


def own_rows(query_ids: Sequence[str], gallery_ids: Sequence[str]) -> Int64[np.ndarray, " q"]:
    """The gallery row of each query itself, by id; -1 where it is not in the gallery.

    Raises:
        SampleError: A gallery id that is given twice.
    """
    return _find(query_ids, _rows(gallery_ids))


def _find(query_ids: Sequence[str], rows: Mapping[str, int]) -> Int64[np.ndarray, " q"]:
    return np.array([rows.get(name, -1) for name in query_ids], np.int64)


def _named(names: Sequence[str]) -> str:
    shown = ", ".join(repr(name) for name in names[:NUM_NAMED])
    return shown if len(names) <= NUM_NAMED else f"{shown} and {len(names) - NUM_NAMED} more"
