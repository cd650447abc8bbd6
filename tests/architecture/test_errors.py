"""Every error is drawn in its module, explained in the docs, and also a builtin."""

import ast
import re
from pathlib import Path

import pytest

import regraft
from regraft import errors
from regraft.errors import MissingExtra, RegraftError

ROOT = Path(regraft.__file__).parent
DOCS = Path(__file__).parents[2] / "docs" / "errors.md"


def error_classes() -> set[str]:
    """Names of all subclasses of RegraftError in the package, wherever they are defined."""
    known, classes = (
        {"RegraftError"},
        [
            node
            for path in ROOT.rglob("*.py")
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ClassDef)
        ],
    )
    while True:
        more = {
            node.name
            for node in classes
            if {base.id for base in node.bases if isinstance(base, ast.Name)} & known
        }
        if more <= known:
            return known - {"RegraftError"}
        known |= more


def test_docs_and_code_name_the_same_errors() -> None:
    assert set(re.findall(r"^\| `(\w+)` \|", DOCS.read_text(), re.M)) == error_classes()


@pytest.mark.parametrize(
    "name",
    [
        name
        for name, thing in vars(errors).items()
        if getattr(thing, "__module__", "") == errors.__name__ and isinstance(thing, type)
    ],
)
def test_the_tree_in_the_docstring(name: str) -> None:
    thing = getattr(errors, name)
    assert issubclass(thing, RegraftError)
    assert name in (errors.__doc__ or "")
    builtin = next((base.__name__ for base in thing.__mro__ if base.__module__ == "builtins"), "")
    if name not in ("RegraftError",):
        assert builtin != "Exception"


def test_a_hint_stands_on_its_own_line() -> None:
    assert str(RegraftError("Broken.", hint="Mend it.")) == "Broken.\n  hint: Mend it."
    assert str(RegraftError("Broken.")) == "Broken."


def test_missing_extra_says_what_to_type() -> None:
    error = MissingExtra.of("exporting to Core ML", "coreml")
    assert str(error) == (
        "Exporting to Core ML needs packages that are not installed.\n  hint: pip install 'regraft[coreml]'"
    )
