"""Linear maps between the spaces of two models, in closed form."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float, Float64

from regraft.data.stream import counter_seed, random_words
from regraft.retrieval.pairs import Pairs
from regraft.retrieval.transform import Affine

MAX_FOLDS = 5
PENALTIES = tuple(float(10.0**power) for power in np.arange(-5, 2.01, 0.5))
"""Ridge penalties that are tried, relative to the mean variance of the inputs."""


def procrustes(pairs: Pairs) -> Affine:
    """The rotation, scale and shift that bring old vectors nearest to new ones.

    Orthogonal Procrustes (Schoenemann 1966), centred and scaled. Where the spaces differ in dimension, the
    matrix has orthogonal rows or columns, whichever are fewer. Side-information is not used: it is no
    rotation of anything.
    """
    old, new = _centred(pairs.old), _centred(pairs.new)
    left, singular, right = np.linalg.svd(old.values.T @ new.values, full_matrices=False)
    scale = singular.sum() / max(np.square(old.values).sum(), np.finfo(np.float64).tiny)
    weight = scale * (left @ right)
    return Affine(torch.from_numpy(weight.T), torch.from_numpy(new.mean - old.mean @ weight))


def ridge(pairs: Pairs, *, seed: int = 0) -> Affine:
    """The linear map of least squared error, held down by a penalty that cross-validation chooses.

    Ridge regression (Hoerl and Kennard 1970), centred, from old vectors followed by the side-information if
    there is any.

    Args:
        pairs: To fit on.
        seed: Decides the folds.
    """
    weight, bias = least_squares(_inputs(pairs), pairs.new, seed=seed)
    side_dimension = 0 if pairs.side is None else pairs.side.shape[1]
    return Affine(torch.from_numpy(weight.T), torch.from_numpy(bias), side_dimension=side_dimension)


def least_squares(
    inputs: Float[np.ndarray, "n d_in"], targets: Float[np.ndarray, "n d_out"], *, seed: int
) -> tuple[Float64[np.ndarray, "d_in d_out"], Float64[np.ndarray, " d_out"]]:
    """Ridge regression: matrix and offset."""
    old, new = _centred(inputs), _centred(targets)
    weight = _Spectrum.of(old.values, new.values).solve(best_penalty(inputs, targets, seed=seed))
    return weight, new.mean - old.mean @ weight


def best_penalty(
    inputs: Float[np.ndarray, "n d_in"], targets: Float[np.ndarray, "n d_out"], *, seed: int
) -> float:
    """The penalty among `PENALTIES` that predicts rows left out with the least squared error.

    There are five folds, or fewer if five would have fewer than two rows each.
    """
    num_folds = max(2, min(MAX_FOLDS, len(inputs) // 2))
    keys = random_words(np.arange(len(inputs), dtype=np.uint64) + np.uint64(counter_seed("folds", seed)), 0)
    folds = np.argsort(np.argsort(keys, kind="stable")) % num_folds
    errors = np.zeros(len(PENALTIES))
    for fold in range(num_folds):
        left_out = folds == fold
        old, new = _centred(inputs[~left_out]), _centred(targets[~left_out])
        spectrum = _Spectrum.of(old.values, new.values)
        for index, penalty in enumerate(PENALTIES):
            found = (inputs[left_out] - old.mean) @ spectrum.solve(penalty) + new.mean
            errors[index] += np.square(found - targets[left_out]).sum()
    return PENALTIES[int(errors.argmin())]


@dataclass(frozen=True, eq=False)
class _Centred:
    values: Float64[np.ndarray, "n d"]
    mean: Float64[np.ndarray, " d"]


@dataclass(frozen=True, eq=False)
class _Spectrum:
    """What every penalty's solution is made from: one decomposition serves all."""

    values: Float64[np.ndarray, " d_in"]
    vectors: Float64[np.ndarray, "d_in d_in"]
    projected: Float64[np.ndarray, "d_in d_out"]

    @classmethod
    def of(
        cls, inputs: Float64[np.ndarray, "n d_in"], targets: Float64[np.ndarray, "n d_out"]
    ) -> "_Spectrum":
        values, vectors = np.linalg.eigh(inputs.T @ inputs)
        return cls(np.maximum(values, 0), vectors, vectors.T @ (inputs.T @ targets))

    def solve(self, penalty: float) -> Float64[np.ndarray, "d_in d_out"]:
        """The solution for a penalty relative to the mean eigenvalue."""
        floor = penalty * max(float(self.values.mean()), np.finfo(np.float64).tiny)
        return self.vectors @ (self.projected / (self.values + floor)[:, None])


def _inputs(pairs: Pairs) -> Float[np.ndarray, "n d_in"]:
    return pairs.old if pairs.side is None else np.concatenate([pairs.old, pairs.side], axis=1)


def _centred(rows: Float[np.ndarray, "n d"]) -> _Centred:
    values = rows.astype(np.float64)
    mean = values.mean(axis=0)
    return _Centred(values - mean, mean)
