"""Orders of backfilling that `upgrade.py` compares: methods, oracles, and a predictor of the benefit."""

import numpy as np
from jaxtyping import Float, Float32, Int
from sklearn.ensemble import HistGradientBoostingRegressor

from regraft.retrieval.head import Head
from regraft.retrieval.order import closeness_of_two, entropy

Vectors = Float32[np.ndarray, "n d"]
Scores = Float[np.ndarray, " n"]
NUM_NEIGHBOURS = 20


def unit(vectors: Vectors) -> Vectors:
    """Vectors of length one."""
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)


def true_distance(vectors: Vectors, new: Vectors, metric: str) -> Scores:
    """How far the transformed vectors are from the new ones: an oracle, for it needs the new ones."""
    if metric == "cosine":
        vectors, new = unit(vectors), unit(new)
    return np.square(vectors - new).sum(axis=1)


def class_error(head: Head, vectors: Vectors, labels: Int[np.ndarray, " n"]) -> Scores:
    """Cross-entropy of the true class, in nats."""
    return -np.log(np.maximum(head.probabilities(vectors)[np.arange(len(labels)), labels], 1e-12))


def true_benefit(head: Head, vectors: Vectors, new: Vectors, labels: Int[np.ndarray, " n"]) -> Scores:
    """By how much the new vector is better for its class: an oracle."""
    return class_error(head, vectors, labels) - class_error(head, new, labels)


def own_uncertainties(head: Head, vectors: Vectors) -> dict[str, Scores]:
    """How undecided the head is about transformed vectors."""
    probabilities = head.probabilities(vectors)
    return {"entropy": entropy(probabilities), "margin": closeness_of_two(probabilities)}


def predicted_benefit(
    head: Head,
    gallery: Vectors,
    gallery_sigma: Scores,
    held_out: Vectors,
    held_out_sigma: Scores,
    held_out_new: Vectors,
    held_out_labels: Int[np.ndarray, " n"],
) -> Scores:
    """A guess at `true_benefit`, learned on held-out pairs with labels."""
    wanted = true_benefit(head, held_out, held_out_new, held_out_labels)
    known = _known(head, held_out, held_out_sigma, gallery, itself=False)
    model = HistGradientBoostingRegressor(
        max_iter=150, learning_rate=0.05, min_samples_leaf=40, random_state=0
    )
    model.fit(known, wanted)
    return model.predict(_known(head, gallery, gallery_sigma, gallery, itself=True))


def _known(
    head: Head, vectors: Vectors, sigma: Scores, gallery: Vectors, *, itself: bool
) -> Float[np.ndarray, "n f"]:
    """What can be known of an item without encoding it anew: its vector, and its neighbours."""
    own = head.probabilities(vectors)
    theirs, nearness = _neighbours(vectors, gallery, head.probabilities(gallery), itself=itself)
    disagreement = (own * np.log(np.maximum(own, 1e-6) / np.maximum(theirs, 1e-6))).sum(axis=1)
    scalars = [sigma, entropy(own), closeness_of_two(own), entropy(theirs), disagreement, nearness]
    return np.concatenate([vectors, own, theirs, np.stack(scalars, axis=1)], axis=1)


def _neighbours(
    vectors: Vectors, gallery: Vectors, opinions: Float[np.ndarray, "n c"], *, itself: bool
) -> tuple[Float[np.ndarray, "m c"], Scores]:
    """Mean opinion of the nearest transformed vectors, and their mean cosine."""
    theirs, nearness = [], []
    ready = unit(gallery)
    for start in range(0, len(vectors), 500):
        cosines = unit(vectors[start : start + 500]) @ ready.T
        if itself:
            rows = np.arange(len(cosines))
            cosines[rows, start + rows] = -np.inf
        near = np.argpartition(-cosines, NUM_NEIGHBOURS, axis=1)[:, :NUM_NEIGHBOURS]
        theirs.append(opinions[near].mean(axis=1))
        nearness.append(np.take_along_axis(cosines, near, axis=1).mean(axis=1))
    return np.concatenate(theirs), np.concatenate(nearness)
