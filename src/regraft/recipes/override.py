"""`--set schedule.steps=1000`: one number of a recipe, typed."""

import ast
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from difflib import get_close_matches
from typing import Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from regraft.errors import RecipeError

Data = TypeVar("Data")


def override(recipe: Data, settings: Iterable[str]) -> Data:
    """Return `recipe` with each `path.to.field=value` of `settings` put in.

    Values are Python literals; a bare word is a string; `none` turns a setting off.

    Raises:
        RecipeError: No such setting, or a value that is not of its type.
    """
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise RecipeError(f"--set {setting} has no value; expected name=value.")
        recipe = _put(recipe, path.split("."), text, path)
    return recipe


def _put(data: Data, path: list[str], text: str, whole: str) -> Data:
    if not is_dataclass(data):
        raise RecipeError(f"No setting named {whole!r}: it goes on where the recipe has a plain value.")
    name, *rest = path
    names = [field.name for field in fields(data)]
    if name not in names:
        close = get_close_matches(name, names, n=1)
        hint = f"Did you mean {close[0]!r}? " if close else ""
        raise RecipeError(
            f"No setting named {name!r} in {whole!r}.", hint=f"{hint}There is: {', '.join(names)}."
        )
    old: object = getattr(data, name)
    if rest:
        new = _put(old, rest, text, whole)
    elif is_dataclass(old):
        raise RecipeError(f"{whole} is a group of settings.", hint=f"Try {whole}.{fields(old)[0].name}=...")
    else:
        new = _parse(text, get_type_hints(type(data))[name], whole)
    return replace(data, **{name: new})  # pyright: ignore[reportArgumentType, reportUnknownVariableType]


def _parse(text: str, kind: object, whole: str) -> object:
    try:
        value: object = (
            None
            if text.lower() == "none"
            else ast.literal_eval(text.capitalize() if text in BOOLEANS else text)
        )
    except (ValueError, SyntaxError):
        value = text
    if (
        isinstance(value, int)
        and not isinstance(value, bool)
        and not _fits(value, kind)
        and _fits(float(value), kind)
    ):
        value = float(value)
    if not _fits(value, kind):
        wanted = kind.__name__ if isinstance(kind, type) else str(kind)
        raise RecipeError(f"{whole} is {text!r}; expected {wanted}.")
    return value


BOOLEANS = ("true", "false")


def _fits(value: object, kind: object) -> bool:
    """Whether `value` is of the annotated type `kind`: plain types, unions, literals and tuples."""
    origin, arguments = get_origin(kind), get_args(kind)
    if origin is Literal:
        return value in arguments
    if origin is tuple:
        return isinstance(value, tuple) and _items_fit(cast(tuple[object, ...], value), arguments)
    if arguments:
        return any(_fits(value, option) for option in arguments)
    # Not isinstance: True is an int in Python, and not in a recipe.
    return kind is type(value)


def _items_fit(values: tuple[object, ...], kinds: tuple[object, ...]) -> bool:
    if len(kinds) == 2 and kinds[1] is Ellipsis:
        return all(_fits(value, kinds[0]) for value in values)
    return len(values) == len(kinds) and all(map(_fits, values, kinds))
