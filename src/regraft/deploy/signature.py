"""The size of input that an artifact takes."""

from collections.abc import Sequence

from torch import Tensor

from regraft.errors import ShapeError


def check_input(x: Tensor, sizes: Sequence[int | None]) -> None:
    """Refuse an input that an artifact cannot take, before its runtime does so in its own words.

    Args:
        sizes: What the artifact takes on each axis; `None` takes any size.

    Raises:
        ShapeError: `x` has another number of axes, or another size on a fixed one.
    """
    fits = len(sizes) == x.ndim and all(
        size is None or size == got for size, got in zip(sizes, x.shape, strict=True)
    )
    if not fits:
        wanted = ", ".join("any" if size is None else str(size) for size in sizes)
        raise ShapeError(f"The input is {tuple(x.shape)}; this artifact takes ({wanted}).")
