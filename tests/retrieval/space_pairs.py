"""Two made-up models of the same items: what one sees is a bent and noisy view of what the other sees."""

import numpy as np

from regraft.retrieval.pairs import Pairs, from_arrays

NUM_CLASSES = 4


def made_pairs(
    num: int = 400, *, old: int = 6, new: int = 5, side: int = 0, noise: float = 0.1, seed: int = 0
) -> Pairs:
    """Pairs whose new vectors are a smooth function of the old ones, and of the side-information."""
    generator = np.random.default_rng(seed)
    weight = np.random.default_rng(99).normal(size=(old + side, new))
    labels = generator.integers(0, NUM_CLASSES, num)
    centres = 2 * np.random.default_rng(98).normal(size=(NUM_CLASSES, old + side))
    seen = centres[labels] + generator.normal(size=(num, old + side))
    wanted = seen @ weight + np.sin(seen @ weight) + noise * generator.normal(size=(num, new))
    return from_arrays(
        unit(seen[:, :old]),
        unit(wanted),
        side=seen[:, old:] if side else None,
        labels=labels,
        ids=[f"item {row}" for row in range(num)],
    )


def unit(vectors: np.ndarray) -> np.ndarray:
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32)
