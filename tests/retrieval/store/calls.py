"""Random calls to a gallery with several spaces, and what is answered, so that two stores can be compared."""

import random
from collections.abc import Iterator

import numpy as np

from regraft.errors import RegraftError
from regraft.retrieval.store.protocol import Layout, Records, VectorStore

IDS = ["a", "b", "c", "it's", "é", "\0", '"', "z" * 50, "B", "漢字", "a\0b", " "]
LAYOUTS = [Layout("m0", 3), Layout("m'1", 3), Layout("m2", 5), Layout("side", 4, packed=True)]
VERBS = ["put"] * 4 + ["fill"] * 6 + ["open_space"] * 3 + ["serve"] * 2 + ["fill_all"] * 3
VERBS += ["search", "find", "get", "drop", "close_space", "scan"] * 2


def replay(store: VectorStore, seed: int, num_calls: int) -> Iterator[object]:
    """Make the calls that `seed` stands for; yield each answer, and after it everything that is stored."""
    draw = random.Random(seed)
    scans: list[Iterator[Records]] = []
    seen: list[Records] = []
    for _ in range(num_calls):
        try:
            yield call(store, draw, scans, seen)
        except RegraftError as error:
            yield type(error).__name__
        yield store.layout, store.spaces, [content(store, layout.space) for layout in store.spaces]
    for scan in scans:
        yield sorted(row for batch in scan for row in as_rows(batch))


def call(
    store: VectorStore, draw: random.Random, scans: list[Iterator[Records]], seen: list[Records]
) -> object:
    verb, layout, origin = draw.choice(VERBS), draw.choice(LAYOUTS), draw.choice(["native", "transformed"])
    ids, k = draw.sample(IDS, draw.randint(0, 6)), draw.randint(1, 5)
    other = draw.choice(LAYOUTS).space
    # Of few values, so that scores tie.
    vectors = np.array(
        [[draw.choice([-1, 1, 2, 0.1]) for _ in range(layout.dimension)] for _ in ids], np.float32
    )
    vectors = vectors.reshape(len(ids), layout.dimension)
    if verb == "put":
        layout = store.layout if store.layout is not None and draw.random() < 0.6 else layout
        vectors = np.resize(vectors, (len(ids), layout.dimension)) if vectors.size else vectors
        sources = draw.choice([None, [draw.choice([None, "there", name]) for name in ids]])
        return store.put(ids, vectors, space=layout.space, origin=origin, sources=sources)
    if verb == "fill":
        if draw.random() < 0.4:
            seen.append(store.find(ids, space=draw.choice([None, other])))
        before = draw.choice([None, *seen[-4:]])
        if before is not None:
            ids, vectors = before.ids, np.resize(vectors, (len(before), layout.dimension)) + np.float32(0.5)
        return store.fill(ids, vectors, space=layout.space, origin=origin, seen=before)
    if verb == "fill_all":
        rows = sorted(name for batch in store.scan(lacking=layout.space) for name in batch.ids)
        ones = np.full((len(rows), layout.dimension), draw.choice([1, 2, 3]), np.float32)
        return store.fill(rows, ones, space=layout.space, origin=origin)
    if verb == "search":
        queries = vectors[:2] if len(vectors) else np.ones((1, layout.dimension), np.float32)
        hits = store.search(queries, k, space=layout.space)
        return hits.ids, [scores.tolist() for scores in hits.scores]
    if verb == "find":
        return as_rows(store.find(ids, space=draw.choice([None, layout.space])))
    if verb == "get":
        ids = [name for name in ids if len(store.find([name])) or draw.random() < 0.2]
        return as_rows(store.get([*ids, *ids[:1]], space=draw.choice([None, layout.space])))
    if verb == "scan":
        chosen = {"space": draw.choice([None, layout.space]), "origin": draw.choice([None, origin])}
        lacking = draw.choice([None, other])
        scans.append(store.scan(**chosen, lacking=lacking, batch_rows=2))
        return store.count(**chosen, lacking=lacking)
    if verb == "drop":
        return store.drop([*ids, *ids[:1]])
    if verb == "open_space":
        return store.open_space(layout)
    return getattr(store, verb)(layout.space)


def content(store: VectorStore, space: str) -> list[tuple]:
    """Every row of a space, in the order of the ids."""
    return sorted(row for batch in store.scan(space=space) for row in as_rows(batch))


def as_rows(records: Records) -> list[tuple]:
    """Rows that can be compared, with the vectors' bits."""
    bits = [row.tobytes() for row in records.vectors]
    sources = [source or "" for source in records.sources]
    return list(zip(records.ids, bits, records.spaces, records.origins, sources, strict=True))
