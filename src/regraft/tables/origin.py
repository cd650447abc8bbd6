"""What a table was made of, and where two accounts of it differ."""

from collections.abc import Iterable, Iterator, Mapping

MISSING = "(not set)"


def differences(recorded: Mapping[str, object], wanted: Mapping[str, object]) -> list[str]:
    """Where two JSON mappings differ, by dotted name."""
    old, new = dict(_entries(recorded)), dict(_entries(wanted))
    return _told(old, new, {**old, **new})


def departures(recorded: Mapping[str, object], expected: Mapping[str, object]) -> list[str]:
    """Where a JSON mapping is not as expected, by dotted name. It may hold more."""
    old, new = dict(_entries(recorded)), dict(_entries(expected))
    return _told(old, new, new)


def _told(old: Mapping[str, object], new: Mapping[str, object], names: Iterable[str]) -> list[str]:
    pairs = ((name, old.get(name, MISSING), new.get(name, MISSING)) for name in names)
    return [f"{name} is {before!r}, expected {after!r}" for name, before, after in pairs if before != after]


def _entries(value: object, name: str = "") -> Iterator[tuple[str, object]]:
    """The values at the ends of nested mappings; an empty mapping is one."""
    if isinstance(value, dict) and (value or not name):
        for key, part in value.items():
            yield from _entries(part, f"{name}.{key}" if name else key)
    else:
        yield name, value
