"""Puts rounds of rows for ever and says so after each; `test_lance_killed.py` kills it.

Usage: killed_writer.py GALLERY FIRST_ROUND. Round n replaces the 16 rows of every round and adds 4 of its
own, so a round that was written in part cannot go unnoticed.
"""

import sys

import numpy as np

from regraft.retrieval.store.lance import LanceStore
from regraft.retrieval.store.protocol import VectorStore

SPACE = "it's a space"
DIMENSION = 8


def put_round(store: VectorStore, number: int) -> None:
    ids = [f"shared-{row}" for row in range(16)] + [f"round-{number}-{row}" for row in range(4)]
    vectors = np.random.default_rng(number).standard_normal((20, DIMENSION)).astype(np.float32)
    store.put(ids, vectors, space=SPACE, sources=[f"round {number}"] * 20)


if __name__ == "__main__":
    gallery, number = LanceStore(sys.argv[1]), int(sys.argv[2])
    while True:
        put_round(gallery, number)
        print(number, flush=True)
        number += 1
