"""Changes a gallery for ever, one call a round, and says so after each; tests kill it.

Usage: killed_rounds.py URI FIRST_ROUND. Ten rounds touch every verb that writes. Each changes many rows, so
one that was written in part cannot go unnoticed.
"""

import sys

import numpy as np

from regraft.retrieval.store.open import open_gallery
from regraft.retrieval.store.protocol import Layout, VectorStore

OLD, NEW, SIDE = Layout("it's old", 8), Layout("new", 6), Layout("side", 5, packed=True)
SHARED = [f"shared-{row}" for row in range(24)]
SPACES = [OLD.space, NEW.space, SIDE.space]


def play(store: VectorStore, number: int) -> None:
    """One round: one call."""
    own = [f"own-{row}-{number // 10}" for row in range(4)]
    ids = SHARED + own
    match number % 10:
        case 0:
            store.put(ids, vectors(OLD, ids, number), space=OLD.space, sources=[f"round {number}"] * len(ids))
        case 1:
            store.open_space(NEW)
        case 2:
            store.fill(ids, vectors(NEW, ids, number), space=NEW.space, origin="transformed")
        case 3:
            store.serve(NEW.space)
        case 4:
            store.fill(SHARED, vectors(NEW, SHARED, number), space=NEW.space, origin="native")
        case 5:
            store.open_space(SIDE)
        case 6:
            store.fill(SHARED, vectors(SIDE, SHARED, number), space=SIDE.space, origin="native")
        case 7:
            store.serve(OLD.space)
        case 8:
            store.close_space(SIDE.space)
        case _:
            store.drop(own)


def vectors(layout: Layout, ids: list[str], number: int) -> np.ndarray:
    return np.random.default_rng(number).standard_normal((len(ids), layout.dimension)).astype(np.float32)


if __name__ == "__main__":
    gallery, number = open_gallery(sys.argv[1]), int(sys.argv[2])
    print("ready", flush=True)
    while True:
        play(gallery, number)
        print(number, flush=True)
        number += 1
