"""Two models and a transformation that are quick, exact, and give an item other bits in another batch."""

import os
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from regraft.retrieval.encoding import Encoded
from regraft.retrieval.ledger_entries import Plan
from regraft.retrieval.store.protocol import Layout, VectorStore

OLD, NEW, SIDE = "model-1", "model-2", "side-model"
OLD_DIMENSION, NEW_DIMENSION, SIDE_DIMENSION = 6, 8, 4
PLAN = Plan(old_space=OLD, new=Layout(NEW, NEW_DIMENSION))
_MAP = np.random.default_rng(7).standard_normal((OLD_DIMENSION, NEW_DIMENSION)).astype(np.float32)
_SIDE_MAP = np.random.default_rng(8).standard_normal((SIDE_DIMENSION, NEW_DIMENSION)).astype(np.float32)


def names(num_items: int) -> list[str]:
    return [f"item-{number:05d}" for number in range(num_items)]


def source_of(name: str) -> str:
    return f"pictures/{name}"


@dataclass
class Toy:
    """An encoder that reads a source's name for its content. `log` gets a line for every id it encodes."""

    space: str
    dimension: int
    log: Path | None = None
    lost: frozenset[str] = frozenset()

    def __call__(self, ids: Sequence[str], sources: Sequence[str | None]) -> Encoded:
        gone = {
            name: "no source" if source is None else "deleted"
            for name, source in zip(ids, sources, strict=True)
            if source is None or source in self.lost
        }
        found = [(name, source) for name, source in zip(ids, sources, strict=True) if name not in gone]
        if self.log is not None and found:
            lines = "".join(f"{name}\n" for name, _ in found)
            descriptor = os.open(self.log, os.O_WRONLY | os.O_APPEND | os.O_CREAT)
            os.write(descriptor, lines.encode())
            os.close(descriptor)
        vectors = [self.vector(str(source)) for _, source in found]
        batch = mark(ids)
        return Encoded(
            [name for name, _ in found],
            np.array(vectors, np.float32).reshape(-1, self.dimension) + batch,
            gone,
        )

    def vector(self, source: str) -> np.ndarray:
        seed = [zlib.crc32(self.space.encode()), zlib.crc32(source.encode())]
        return np.random.default_rng(seed).standard_normal(self.dimension).astype(np.float32)


def mark(ids: Sequence[str]) -> np.float32:
    """A small number that tells batches apart, as a GEMM's last bits may."""
    return np.float32(zlib.crc32("\n".join(ids).encode()) % 1009) * np.float32(1e-4)


@dataclass(frozen=True, eq=False)
class ToyTransformed:
    vectors: np.ndarray
    log_variance: np.ndarray | None


def transform(old: np.ndarray, side: np.ndarray | None) -> ToyTransformed:
    batch = np.float32(zlib.crc32(old.tobytes()) % 1009) * np.float32(1e-4)
    vectors = old @ _MAP + batch
    if side is not None:
        vectors = vectors + side @ _SIDE_MAP
    return ToyTransformed(vectors, np.sin(100 * vectors[:, 0]).astype(np.float32))


old_model = Toy(OLD, OLD_DIMENSION)
new_model = Toy(NEW, NEW_DIMENSION)
side_model = Toy(SIDE, SIDE_DIMENSION)


def fill_gallery(store: VectorStore, num_items: int) -> None:
    """Items in the old space, each with its source, in an order that is not the order of their ids."""
    ids = [names(num_items)[place] for place in np.random.default_rng(0).permutation(num_items)]
    sources = [source_of(name) for name in ids]
    store.put(ids, old_model(ids, sources).vectors, space=OLD, sources=sources)


def contents(store: VectorStore) -> dict[str, dict[str, tuple[bytes, str, str | None]]]:
    """Every row of every space, to the bit; the served space first."""
    return {
        layout.space: dict(
            sorted(
                (name, (vector.tobytes(), origin, source))
                for batch in store.scan(space=layout.space)
                for name, vector, origin, source in zip(
                    batch.ids, batch.vectors, batch.origins, batch.sources, strict=True
                )
            )
        )
        for layout in store.spaces
    }
