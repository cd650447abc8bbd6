"""Which items a query meets first, whether or not anybody knows what is relevant."""

from collections.abc import Iterator

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64

from regraft.errors import RecipeError, ShapeError
from regraft.retrieval.distances import COSINE, Metric, prepared
from regraft.retrieval.mixture import Mixture
from regraft.retrieval.ranking import block_queries


def nearest(
    queries: Float[np.ndarray, "q _"],
    gallery: Float[np.ndarray, "_ _"],
    k: int,
    own_row: Int64[np.ndarray, " _"],
    *,
    metric: Metric = COSINE,
) -> Int64[np.ndarray, "q k"]:
    """The gallery rows of the `k` items nearest to each query, nearest first; equals in the order of rows.

    Args:
        queries: Finite and not zero.
        gallery: Of the same space.
        k: At least 1, and fewer than the gallery's items.
        own_row: The gallery row of the query itself, which it never meets; -1 if it is not there. `own_rows`
            finds it by id.
        metric: How vectors are compared.

    Raises:
        ShapeError: Dimensions or numbers of rows that do not fit.
        VectorError: Vectors that cannot be compared.
        RecipeError: A `k` out of range.
    """
    mixture = Mixture.whole(gallery, metric)
    _check_k(k, mixture)
    rows = [_first(distances, k) for distances in _distances(queries, mixture, own_row)]
    return np.array(rows, np.int64).reshape(len(queries), k)


def agreement(found: Int64[np.ndarray, "_ _"], wanted: Int64[np.ndarray, "_ _"]) -> float:
    """Mean share of the `k` nearest items that two galleries have in common.

    With `wanted` from a fully re-embedded gallery this is how well the new model is *imitated*, not how good
    the answers are: without labels nothing better can be known. A transformation that sorts items by class
    more cleanly than the new model does is worse by this figure and better by mean average precision.

    Args:
        found: Rows of the gallery in question, each once a query; see `nearest`.
        wanted: Rows of the new model's own gallery, for the same queries.

    Raises:
        ShapeError: The lists differ in shape, or there are none.
    """
    if found.shape != wanted.shape or found.size == 0:
        raise ShapeError(
            f"Got lists of shape {found.shape} and {wanted.shape}; expected the same, not empty."
        )
    return float(np.mean([np.isin(some, others).mean() for some, others in zip(found, wanted, strict=True)]))


def exposure_ratio(
    queries: Float[np.ndarray, "q _"],
    transformed: Float[np.ndarray, "_ _"],
    native: Float[np.ndarray, "_ _"],
    order: Int64[np.ndarray, " _"],
    k: int,
    own_row: Int64[np.ndarray, " _"],
    *,
    num_native: int,
    metric: Metric = COSINE,
) -> float:
    """How often native items are among the `k` nearest, divided by their share of the gallery.

    At 1 they are met as often as there are of them; below, transformed items crowd them out, and money spent
    on backfilling is not seen; above, it is the other way round. Items as near as the k-th count with it.

    Args:
        queries: Of the new model.
        transformed: The gallery as computed from the old model's vectors.
        native: The gallery as encoded by the new model.
        order: Gallery rows, the first to be backfilled first.
        k: At least 1, and fewer than the gallery's items.
        own_row: The gallery row of the query itself; -1 if it is not there.
        num_native: How many items are native, from 1.
        metric: How vectors are compared.

    Raises:
        ShapeError: Dimensions or numbers of rows that do not fit, or no query.
        VectorError: Vectors that cannot be compared.
        RecipeError: `k` or `num_native` out of range.
    """
    if num_native < 1:
        raise RecipeError(f"{num_native} items are native; expected at least 1.")
    mixture = Mixture(transformed, native, order, np.array([num_native]), metric)
    _check_k(k, mixture)
    native_rows = np.arange(mixture.num_vectors) >= mixture.num_transformed
    shares = [_share(distances, k, native_rows) for distances in _distances(queries, mixture, own_row)]
    if not shares:
        raise ShapeError("Exposure was asked for without a query; expected at least one.")
    return float(np.mean(shares)) / (num_native / mixture.num_items)


def _distances(
    queries: Float[np.ndarray, "q _"],
    mixture: Mixture,
    own_row: Int64[np.ndarray, " _"],
) -> Iterator[Float32[np.ndarray, " n"]]:
    mixture.check_queries(queries)
    if len(own_row) != len(queries):
        raise ShapeError(f"Got {len(queries)} queries and own rows of {len(own_row)}; expected one a query.")
    ready = prepared(mixture.metric.queries, (queries, np.arange(len(queries))))
    step = block_queries(len(mixture.vectors))
    for start in range(0, len(queries), step):
        distances = ready[start : start + step] @ mixture.vectors.T
        owns = own_row[start : start + step, None]
        for row, own in zip(distances[: len(owns), : mixture.num_vectors], owns, strict=True):
            row[mixture.rows_of(own[own >= 0])] = np.inf
            yield row


def _first(distances: Float32[np.ndarray, " n"], k: int) -> Int64[np.ndarray, " k"]:
    edge = np.partition(distances, k - 1)[k - 1]
    rows = np.flatnonzero(distances <= edge)  # all that tie at the edge: the lowest rows are kept
    return rows[np.argsort(distances[rows], kind="stable")[:k]]


def _share(distances: Float32[np.ndarray, " n"], k: int, native: Bool[np.ndarray, " n"]) -> float:
    near = distances <= np.partition(distances, k - 1)[k - 1]
    return np.count_nonzero(near & native) / np.count_nonzero(near)


def _check_k(k: int, mixture: Mixture) -> None:
    if not 1 <= k < mixture.num_items:
        raise RecipeError(f"k is {k}; expected 1 to {mixture.num_items - 1}, fewer than the gallery's items.")
