"""A transformation in one file: weights, how it is built, and between which spaces it leads."""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file

from regraft.errors import WeightsError
from regraft.files import replacing
from regraft.retrieval.transform import Affine, ResidualMLP, Transformation, TwoBranch, UncertainTwoBranch
from regraft.retrieval.uncertainty import ErrorEstimate, WithErrorEstimate

KEY = "regraft_transformation"
"""Entry of the safetensors header that holds the rest, as JSON."""


@dataclass(frozen=True, kw_only=True)
class TransformationCard:
    """What must be known about a transformation to use it."""

    old: str
    """Fingerprint of the space it leads from."""
    new: str
    """Fingerprint of the space it leads to."""
    side: str | None = None
    """Fingerprint of the space of its side-information; `None` if it takes none."""
    facts: Mapping[str, object] = field(default_factory=dict[str, object])
    """How it came about, as JSON values: method, number of pairs, quality."""


def save_transformation(path: str | Path, transformation: Transformation, card: TransformationCard) -> None:
    """Write a transformation and its card to one `.safetensors` file, all or nothing."""
    header = {"card": asdict(card), "shape": _shape(transformation)}
    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in transformation.state_dict().items()
    }
    with replacing(Path(path)) as temporary:
        save_file(weights, temporary, metadata={KEY: json.dumps(header)})


def load_transformation(path: str | Path) -> tuple[Transformation, TransformationCard]:
    """Read a transformation, in eval mode, and its card.

    Raises:
        WeightsError: The file is not there, is no transformation, or its weights do not fit its description.
    """
    path = Path(path)
    header = _header(path)
    try:
        transformation, card = _build(header["shape"]), TransformationCard(**header["card"])
        transformation.load_state_dict(load_file(path))
    except (RuntimeError, KeyError, TypeError, ValueError) as error:
        raise WeightsError(
            f"The transformation in {path} cannot be read: {error}.",
            hint="A newer Regraft may have written it.",
        ) from error
    return transformation.eval().requires_grad_(False), card


def _header(path: Path) -> dict[str, Any]:
    if not path.is_file():
        raise WeightsError(f"There is no file {path}.")
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise WeightsError(f"{path} is not a safetensors file: {error}.") from error
    if KEY not in metadata:
        raise WeightsError(
            f"{path} holds weights, but no transformation.", hint="regraft upgrade plan makes one."
        )
    return json.loads(metadata[KEY])


def _shape(transformation: Transformation) -> dict[str, object]:
    """What it takes to build the same network with other weights."""
    kind = type(transformation).__name__
    dimensions = [transformation.old_dimension, transformation.new_dimension, transformation.side_dimension]
    match transformation:
        case Affine():
            more: dict[str, object] = {}
        case ResidualMLP():
            more = {"hidden": transformation.hidden}
        case TwoBranch():
            more = {"width": transformation.width}
        case UncertainTwoBranch():
            more = {"inner": _shape(transformation.two_branch)}
        case WithErrorEstimate():
            more = {"inner": _shape(transformation.transformation)}
        case _:
            raise WeightsError(f"A {kind} cannot be written, expected one of {', '.join(_BUILDERS)}.")
    return {"kind": kind, "dimensions": dimensions, **more}


def _build(shape: Mapping[str, Any]) -> Transformation:
    return _BUILDERS[shape["kind"]](shape, *shape["dimensions"])


def _affine(shape: Mapping[str, Any], old: int, new: int, side: int) -> Affine:
    return Affine(torch.zeros(new, old + side), torch.zeros(new), side_dimension=side)


def _residual(shape: Mapping[str, Any], old: int, new: int, side: int) -> ResidualMLP:
    return ResidualMLP(_affine(shape, old, new, side), shape["hidden"])


def _two_branch(shape: Mapping[str, Any], old: int, new: int, side: int) -> TwoBranch:
    return TwoBranch(old, new, side, width=shape["width"])


def _uncertain(shape: Mapping[str, Any], old: int, new: int, side: int) -> UncertainTwoBranch:
    inner = _build(shape["inner"])
    assert isinstance(inner, TwoBranch)
    return UncertainTwoBranch(inner)


def _with_estimate(shape: Mapping[str, Any], old: int, new: int, side: int) -> WithErrorEstimate:
    return WithErrorEstimate(_build(shape["inner"]), ErrorEstimate(old + side + new))


_BUILDERS: dict[str, Callable[..., Transformation]] = {
    "Affine": _affine,
    "ResidualMLP": _residual,
    "TwoBranch": _two_branch,
    "UncertainTwoBranch": _uncertain,
    "WithErrorEstimate": _with_estimate,
}
