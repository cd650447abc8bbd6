"""`--set schedule.steps=1000`: one number of a recipe, typed."""

import ast
from collections.abc import Iterable
from dataclasses import fields, is_dataclass, replace
from typing import Literal, TypeVar, cast, get_args, get_origin, get_type_hints

from regraft.errors import RecipeError, nearest

Data = TypeVar("Data")
Tree = dict[str, "str | Tree"]
"""Settings by name: a value as text, or the settings of a group."""
WORDS = {"none": None, "true": True, "false": False}


def override(recipe: Data, settings: Iterable[str]) -> Data:
    """Return `recipe` with each `path.to.field=value` of `settings` put in, all at once.

    Values are Python literals; a bare word is a string; `none` turns a setting off.

    Raises:
        RecipeError: No such setting, or a value that is not of its type.
    """
    tree: Tree = {}
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise RecipeError(f"--set {setting} has no value; expected name=value.")
        _plant(tree, path, text)
    return _put(recipe, tree, "")


def _plant(tree: Tree, path: str, text: str) -> None:
    *groups, name = path.split(".")
    for group in groups:
        branch = tree.setdefault(group, {})
        if not isinstance(branch, dict):
            raise RecipeError(f"{path}: {group} was given a value of its own, {branch!r}.")
        tree = branch
    tree[name] = text


def _put(data: Data, tree: Tree, prefix: str) -> Data:
    """Return dataclass `data` with the leaves of `tree` put in; `prefix` is where it stands."""
    if not is_dataclass(data):
        raise RecipeError(f"{prefix.rstrip('.')} is a plain value; it has no setting {next(iter(tree))!r}.")
    changes = {name: _changed(data, name, new, prefix) for name, new in tree.items()}
    return replace(data, **changes)  # pyright: ignore[reportArgumentType, reportUnknownVariableType]


def _changed(data: object, name: str, new: "str | Tree", prefix: str) -> object:
    assert is_dataclass(data)
    names = [field.name for field in fields(data)]
    if name not in names:
        hint = f"{nearest(name, names)}There is: {', '.join(names)}."
        raise RecipeError(f"No setting named {prefix}{name}.", hint=hint)
    old: object = getattr(data, name)
    if isinstance(new, dict):
        return _put(old, new, f"{prefix}{name}.")
    if is_dataclass(old):
        first = fields(old)[0].name
        raise RecipeError(f"{prefix}{name} is a group of settings.", hint=f"Try {prefix}{name}.{first}=...")
    return _parse(new, get_type_hints(type(data))[name], f"{prefix}{name}")


def _parse(text: str, kind: object, whole: str) -> object:
    value = _as_float(_literal(text), kind)
    if not _fits(value, kind):
        wanted = kind.__name__ if isinstance(kind, type) else str(kind)
        raise RecipeError(f"{whole} is {text!r}; expected {wanted}.")
    return value


def _literal(text: str) -> object:
    if text.lower() in WORDS:
        return WORDS[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _as_float(value: object, kind: object) -> object:
    """`value`, or the same in floats if only that is of type `kind`."""
    if _fits(value, kind):
        return value
    if isinstance(value, tuple):
        items = cast(tuple[object, ...], value)
        floats: object = tuple(float(item) if type(item) is int else item for item in items)
    else:
        floats = float(value) if type(value) is int else value
    return floats if _fits(floats, kind) else value


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
