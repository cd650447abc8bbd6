"""Proof that two functions give the same answers."""

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass
from itertools import chain
from types import MethodType
from typing import NamedTuple

import torch
from jaxtyping import Float
from torch import Tensor, nn

from regraft.errors import ParityError, RecipeError
from regraft.nn.reparam import refuse_train_mode

Function = Callable[[Tensor], Tensor]


@dataclass(frozen=True, kw_only=True)
class Parity:
    """How far a candidate's answers are from a reference's, and whether that is near enough."""

    worst_absolute: float
    """Largest absolute difference of two output values; infinite or NaN if any value was not finite."""
    worst_relative: float
    """Largest, over the batches, of the largest absolute difference divided by the largest absolute
    value of the reference in that batch; infinite or NaN if any value was not finite."""
    agreement: float
    """Share of decisions (argmax over axis 1, the classes) that are the same, in [0, 1]."""
    num_inputs: int
    """Inputs compared: the sum of the batch sizes."""
    tolerance: float
    """Largest `worst_relative` that passes."""
    min_agreement: float
    """Smallest `agreement` that passes."""

    @property
    def passed(self) -> bool:
        """Whether the two are the same, as far as asked. Never true of NaN or infinity."""
        is_finite = math.isfinite(self.worst_absolute) and math.isfinite(self.worst_relative)
        return is_finite and self.worst_relative <= self.tolerance and self.agreement >= self.min_agreement

    def to_json(self) -> dict[str, float | int | bool | None]:
        """All of it as plain numbers, with `passed`; `None` for what is not finite, which JSON cannot say."""
        numbers: dict[str, float | int | bool] = asdict(self) | {"passed": self.passed}
        return {name: value if math.isfinite(value) else None for name, value in numbers.items()}

    def __str__(self) -> str:
        verdict = "same" if self.passed else "DIFFERENT"
        allowed = f"{self.tolerance:.1e}".replace(".0e", "e")
        return (
            f"{verdict}: worst difference {self.worst_relative:.2e} (allowed {allowed}), "
            f"top-1 agreement {100 * self.agreement:.1f} % on {self.num_inputs} inputs"
        )


def compare(
    reference: Function,
    candidate: Function,
    inputs: Tensor | Iterable[Tensor],
    *,
    tolerance: float = 1e-4,
    min_agreement: float = 0.99,
) -> Parity:
    """Measure how far `candidate` is from `reference` on the same inputs.

    Differences are relative to the largest absolute value of the reference in the same batch, so
    the verdict does not change with the scale of the outputs: an absolute limit would fail a network
    with large logits for rounding and pass any network with tiny ones.

    Args:
        reference: What the answers should be: a module in eval mode, or a function. Its outputs are
            `(b n *space)`, with the classes or features on axis 1.
        candidate: What has to give the same answers: another module, an exported artifact, a function.
        inputs: Batches `(b ...)`; a single tensor is one batch. Each function gets its own copy.
        tolerance: Largest relative difference that passes, finite and at least 0. The default leaves
            float32 rounding a factor of about four: fused MobileOne S0, the worst case, was measured at
            2.7e-5.
        min_agreement: Smallest share of equal decisions that passes, in [0, 1].

    Raises:
        ParityError: Nothing was proven: no inputs, outputs of different shapes, a reference that is
            zero everywhere, or a function compared with itself or an identical copy of itself.
        TrainModeError: A module is in training mode.
        RecipeError: `tolerance` or `min_agreement` is out of its range.
    """
    check_limits(tolerance, min_agreement)
    _refuse_self(reference, candidate)
    for function in (reference, candidate):
        owner, _ = _identity(function)
        if isinstance(owner, nn.Module):
            refuse_train_mode(owner, "compare")
    batches = [inputs] if isinstance(inputs, Tensor) else inputs
    measured = [_measure(reference, candidate, batch) for batch in batches]
    if not measured:
        raise ParityError("There were no inputs to compare on; expected at least one batch.")
    # Reduced by torch, because Python's max(1.0, nan) is 1.0 and would hide a NaN.
    differences = torch.stack([batch.difference for batch in measured])
    scales = torch.stack([batch.scale for batch in measured])
    if not scales.any():
        raise ParityError(
            "The reference is zero for every input, so nothing can be proven.",
            hint="Compare a model whose weights have been trained or drawn at random.",
        )
    return Parity(
        worst_absolute=differences.amax().item(),
        worst_relative=_ratio(differences, scales).amax().item(),
        agreement=sum(batch.num_equal for batch in measured) / sum(batch.num_decisions for batch in measured),
        num_inputs=sum(batch.num_inputs for batch in measured),
        tolerance=tolerance,
        min_agreement=min_agreement,
    )


def check_limits(tolerance: float, min_agreement: float) -> None:
    """Refuse limits that would let anything pass, or nothing.

    Raises:
        RecipeError: `tolerance` is below 0 or not finite, or `min_agreement` is outside [0, 1].
    """
    if not (math.isfinite(tolerance) and tolerance >= 0):
        raise RecipeError(f"tolerance is {tolerance}; expected a finite number of at least 0.")
    if not 0 <= min_agreement <= 1:
        raise RecipeError(f"min_agreement is {min_agreement}; expected a share between 0 and 1.")


def random_inputs(shape: Iterable[int], count: int, *, seed: int = 0) -> Iterator[Tensor]:
    """Yield `count` batches of `shape` from a standard normal, the same ones for the same seed."""
    generator = torch.Generator().manual_seed(seed)
    sizes = tuple(shape)
    for _ in range(count):
        yield torch.randn(sizes, generator=generator)


class _Measured(NamedTuple):
    """What one batch showed."""

    difference: Float[Tensor, ""]
    scale: Float[Tensor, ""]
    num_equal: int
    num_decisions: int
    num_inputs: int


def _measure(reference: Function, candidate: Function, batch: Tensor) -> _Measured:
    wanted, got = _run(reference, batch), _run(candidate, batch)
    _check_outputs(wanted, got)
    equal = wanted.argmax(1) == got.argmax(1)
    return _Measured(
        difference=(wanted - got).abs().amax(),
        scale=wanted.abs().amax(),
        num_equal=int(equal.sum()),
        num_decisions=equal.numel(),
        num_inputs=len(batch),
    )


def _run(function: Function, batch: Tensor) -> Tensor:
    with torch.no_grad():
        return function(batch.clone()).detach().to("cpu", torch.float64)


def _check_outputs(wanted: Tensor, got: Tensor) -> None:
    if wanted.shape != got.shape:
        raise ParityError(
            f"The candidate's output is {tuple(got.shape)}; expected the reference's {tuple(wanted.shape)}."
        )
    if wanted.ndim < 2 or not wanted.numel():
        raise ParityError(
            f"The outputs are {tuple(wanted.shape)}; expected batches of values, (b n) or (b n ...)."
        )


def _ratio(difference: Float[Tensor, " n"], scale: Float[Tensor, " n"]) -> Float[Tensor, " n"]:
    """Difference per scale, where no difference from zero is none."""
    return torch.where((difference == 0) & (scale == 0), scale, difference / scale)


def _refuse_self(reference: Function, candidate: Function) -> None:
    (ours, our_method), (theirs, their_method) = _identity(reference), _identity(candidate)
    if our_method == their_method and (ours is theirs or _is_copy(ours, theirs)):
        raise ParityError(
            "The candidate is the reference itself, or an identical copy: a proof that cannot fail.",
            hint="The change you want to prove was not made; a model may have been fused already.",
        )


def _identity(function: Function) -> tuple[object, str]:
    """The object and which of its methods is called. A module stands for its `forward`."""
    if not isinstance(function, MethodType):
        return function, "forward" if isinstance(function, nn.Module) else ""
    calls_forward = isinstance(function.__self__, nn.Module) and function in _calls(function.__self__)
    return function.__self__, "forward" if calls_forward else function.__name__


def _calls(module: nn.Module) -> tuple[object, object]:
    return module.forward, module.__call__


def _is_copy(ours: object, theirs: object) -> bool:
    """Whether two modules have the same parts, settings and tensors, laid out alike in memory."""
    if not (isinstance(ours, nn.Module) and isinstance(theirs, nn.Module)):
        return False
    if _parts(ours) != _parts(theirs):
        return False
    left, right = _tensors(ours), _tensors(theirs)
    return left.keys() == right.keys() and all(_is_identical(left[name], right[name]) for name in left)


def _parts(module: nn.Module) -> list[tuple[str, type, dict[str, object]]]:
    return [(name, type(part), _settings(part)) for name, part in module.named_modules()]


def _settings(part: nn.Module) -> dict[str, object]:
    plain = (bool, int, float, str, tuple)
    return {name: value for name, value in vars(part).items() if isinstance(value, plain)}


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    return dict(chain(module.named_parameters(), module.named_buffers()))


def _is_identical(left: Tensor, right: Tensor) -> bool:
    """Whether a kernel would see no difference: another device, type or layout is one."""
    return (
        left.device == right.device
        and left.dtype == right.dtype
        and left.shape == right.shape
        and left.stride() == right.stride()
        and torch.equal(left, right)
    )
