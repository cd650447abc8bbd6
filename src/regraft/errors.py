"""Everything Regraft raises on purpose.

RegraftError
├── ArchitectureError   (LookupError)       no such model, or an option it does not have
├── ShapeError          (ValueError)        a tensor or vector of the wrong size
├── TrainModeError      (RuntimeError)      fusing or exporting a model that is still training
├── WeightsError        (ValueError)        a weight file with unknown, missing or wrong-sized entries
├── ParityError         (AssertionError)    two things that had to agree do not
├── RecipeError         (ValueError)        a setting out of range, or unknown
├── PlaceError          (OSError)           a place where nothing can be written
├── Diverged            (FloatingPointError) a gradient that is not finite
├── Interrupted         (RuntimeError)      a run stopped by a signal, after its checkpoint was written
├── RunError            (RuntimeError)      a run directory that cannot be continued as asked
├── SampleError         (ValueError)        data that cannot be read, or of which too much is bad
│   └── BadImage        (ValueError)        one picture that cannot be read (vision/images.py)
├── TableError          (ValueError)        a table that is damaged, unfinished, or not of what was asked
├── StoreError          (RuntimeError)      a gallery that did not do what was asked
│   ├── SpaceMismatch   (ValueError)        vectors of two models that cannot be compared
│   └── VectorError     (ValueError)        vectors or ids that must not be stored
└── MissingExtra        (ImportError)       an optional package that is not installed

A library user can catch `RegraftError`, or the builtin in brackets. The command line prints the
message and exits 1; anything else is a bug and keeps its traceback.
"""

from collections.abc import Iterable
from difflib import get_close_matches


def nearest(name: str, names: Iterable[str]) -> str:
    """Ask whether the most similar of `names` was meant; empty if none is similar."""
    close = get_close_matches(name, list(names), n=1)
    return f"Did you mean {close[0]!r}? " if close else ""


class RegraftError(Exception):
    """A mistake the user can mend: what is wrong, what was expected, one thing to try.

    Args:
        message: What is wrong, with the value, and what was expected.
        hint: One thing to try, without a final line break.
    """

    def __init__(self, message: str, *, hint: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return self.message if self.hint is None else f"{self.message}\n  hint: {self.hint}"


class ArchitectureError(RegraftError, LookupError):
    """No such model, or an option the model does not have."""


class ShapeError(RegraftError, ValueError):
    """A tensor or vector of the wrong size."""


class TrainModeError(RegraftError, RuntimeError):
    """Fusing or exporting a model that is still in training mode."""


class WeightsError(RegraftError, ValueError):
    """A weight file with unknown, missing or wrong-sized entries."""


class ParityError(RegraftError, AssertionError):
    """Two things that had to agree do not, or could not be compared honestly."""


class RecipeError(RegraftError, ValueError):
    """A setting that is out of range, unknown, or at odds with another."""


class PlaceError(RegraftError, OSError):
    """A place where nothing can be written, or not what was asked."""


class Diverged(RegraftError, FloatingPointError):
    """A gradient that is not finite."""


class Interrupted(RegraftError, RuntimeError):
    """A run stopped by a signal, after its checkpoint was written."""


class RunError(RegraftError, RuntimeError):
    """A run directory that cannot be continued as asked."""


class SampleError(RegraftError, ValueError):
    """Data that cannot be read, or of which too much is bad."""


class TableError(RegraftError, ValueError):
    """A table that is damaged, unfinished, or not of what was asked."""


class StoreError(RegraftError, RuntimeError):
    """A gallery that did not do what was asked of it."""


class SpaceMismatch(StoreError, ValueError):
    """Vectors of two models that cannot be compared."""


class VectorError(StoreError, ValueError):
    """Vectors or ids that must not be stored."""


class MissingExtra(RegraftError, ImportError):
    """An optional package that is not installed."""

    @classmethod
    def of(cls, purpose: str, extra: str) -> "MissingExtra":
        """The error for `purpose` (a gerund, such as "exporting to Core ML") that needs `extra`."""
        return cls(
            f"{purpose[0].upper()}{purpose[1:]} needs packages that are not installed.",
            hint=f"pip install 'regraft[{extra}]'",
        )
