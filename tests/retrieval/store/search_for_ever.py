"""Searches a gallery for ever, and writes down each answer that is not the one before it.

Usage: search_for_ever.py GALLERY. A line is the space that answered, then every hit of every query.
"""

import sys

from killed_rounds import NEW, OLD, vectors

from regraft.errors import SpaceMismatch
from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.protocol import Layout, VectorStore

QUERIES = ["one query", "another"]


def answer(store: VectorStore, layout: Layout) -> str:
    """Every hit with its score, to the bit, for queries of one space."""
    hits = store.search(vectors(layout, QUERIES, 0), 50, space=layout.space)
    scored = [
        list(zip(ids, scores.tolist(), strict=True))
        for ids, scores in zip(hits.ids, hits.scores, strict=True)
    ]
    return f"{layout.space} {scored}"


if __name__ == "__main__":
    gallery, before = LanceStore(sys.argv[1]), ""
    while True:
        for layout in (OLD, NEW):
            try:
                now = answer(gallery, layout)
            except SpaceMismatch:
                continue
            if now != before:
                print(now, flush=True)
            before = now
