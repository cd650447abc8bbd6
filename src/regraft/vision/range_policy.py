"""Learned ranges as plain data: how strongly to vary pictures, without learning it again."""

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast, final

from regraft.errors import RecipeError
from regraft.files import replacing
from regraft.vision.range_operations import operation_named

VERSION = 1
CHANCE = 0.5
"""Of an operation to be applied to a picture."""


class Range(NamedTuple):
    """An operation, by name, and the smallest and largest magnitude that it is applied with."""

    operation: str
    low: float
    high: float


@final
@dataclass(frozen=True, kw_only=True)
class RangePolicy:
    """Ranges of magnitudes. A picture gets each operation with a chance, in random order, then is clamped.

    Args:
        operations: The ranges, each operation once. Magnitudes are 0 or more.
        target_db: The peak signal-to-noise ratio that they were learned for; `None` if that is not known.
        chance: Of each operation, in [0, 1].

    Raises:
        RecipeError: An unknown operation, or a number out of its range.
    """

    operations: tuple[Range, ...]
    target_db: float | None = None
    chance: float = CHANCE

    def __post_init__(self) -> None:
        for name, _, _ in self.operations:
            operation_named(name)
        if wrong := list(self._problems()):
            raise RecipeError(f"The policy cannot be used: {'; '.join(wrong)}.")

    def to_json(self) -> dict[str, object]:
        """The policy as JSON values."""
        return {
            "version": VERSION,
            "target_db": self.target_db,
            "chance": self.chance,
            "operations": {name: {"low": low, "high": high} for name, low, high in self.operations},
        }

    @classmethod
    def from_json(cls, values: Mapping[str, object]) -> "RangePolicy":
        """The policy that `to_json` described.

        Raises:
            RecipeError: An entry is missing, unknown, or not the number it should be.
        """
        if values.get("version") != VERSION:
            raise RecipeError(f"The policy has version {values.get('version')!r}, expected {VERSION}.")
        try:
            ends = cast(Mapping[str, Mapping[str, float]], values["operations"])
            return cls(
                operations=tuple(
                    Range(name, _number(end["low"]), _number(end["high"])) for name, end in ends.items()
                ),
                target_db=None if values["target_db"] is None else _number(values["target_db"]),
                chance=_number(values["chance"]),
            )
        except (KeyError, TypeError, AttributeError) as error:
            raise RecipeError(
                f"The policy cannot be read: {error!r}; expected numbers target_db and chance, "
                "and operations, each with numbers low and high."
            ) from error

    def save(self, path: Path) -> None:
        """Write the policy as JSON.

        Raises:
            PlaceError: Nothing can be written at `path`.
        """
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(self.to_json(), indent=2) + "\n")

    @classmethod
    def load(cls, path: Path) -> "RangePolicy":
        """Read a policy.

        Raises:
            RecipeError: The file cannot be read, or is not a policy.
        """
        try:
            values = json.loads(path.read_bytes())
        except (OSError, ValueError) as error:
            raise RecipeError(f"The policy {path} cannot be read: {error}.") from error
        if not isinstance(values, dict):
            raise RecipeError(
                f"The policy {path} is {type(values).__name__}, expected an object with operations."
            )
        return cls.from_json(values)

    def _problems(self) -> Iterator[str]:
        names = [name for name, _, _ in self.operations]
        if not names or len(set(names)) < len(names):
            yield f"its operations are {names}, expected one or more, each once"
        for name, low, high in self.operations:
            if not 0 <= low <= high < math.inf:
                yield f"{name} goes from {low} to {high}, expected two ascending numbers from 0 on"
        if not 0 <= self.chance <= 1:
            yield f"chance is {self.chance}, expected 0 to 1"
        if self.target_db is not None and not math.isfinite(self.target_db):
            yield f"target_db is {self.target_db}, expected a number"


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise TypeError(f"{value!r} is not a number")
    return float(value)
