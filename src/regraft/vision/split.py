"""Which samples are held out: a seeded choice that samples added later do not change."""

from collections.abc import Mapping, Sequence, Set

from regraft.data.sample import without_copy_number
from regraft.data.stream import counter_seed


def held_out(ids: Sequence[str], labels: Sequence[int], fraction: float, seed: int) -> set[int]:
    """Indices of about `fraction` of the samples, chosen by a hash of their names.

    Copies, which are samples whose ids differ in the copy number alone, share a side, also across
    classes. A class that chance puts on one side sends the name nearest the threshold to the other,
    unless another class would lose its last one there. A class of a single name is not held out.

    Args:
        ids: A name a sample.
        labels: Its class.
        fraction: Share to hold out, between 0 and 1.
        seed: Another seed is another choice.
    """
    copies: dict[str, list[int]] = {}
    for index, sample_id in enumerate(ids):
        copies.setdefault(without_copy_number(sample_id), []).append(index)
    draws = {name: counter_seed("split", seed, name) for name in copies}
    chosen = {name for name, draw in draws.items() if draw < fraction * 2**63}
    classes_of = {name: {labels[index] for index in indices} for name, indices in copies.items()}
    names_of: dict[int, list[str]] = {}
    for name in sorted(copies, key=lambda name: (draws[name], name)):
        for label in classes_of[name]:
            names_of.setdefault(label, []).append(name)
    for label in sorted(names_of):
        chosen ^= _changing_sides(label, names_of, classes_of, chosen)
    return {index for name in chosen for index in copies[name]}


def _changing_sides(
    label: int, names_of: Mapping[int, Sequence[str]], classes_of: Mapping[str, Set[int]], chosen: Set[str]
) -> set[str]:
    """The name, if any, whose change of sides puts the class `label` where it is missing."""
    names = names_of[label]  # The lowest draw is the first, so the last is the nearest of those below.
    num_chosen = sum(name in chosen for name in names)
    if num_chosen == len(names):
        candidates = names[::-1]
    elif num_chosen == 0 and len(names) > 1:
        candidates = names
    else:
        return set()
    for name in candidates:
        others = (names_of[other] for other in classes_of[name] - {label})
        if all(_can_spare(name, theirs, chosen) for theirs in others):
            return {name}
    return set()


def _can_spare(name: str, names: Sequence[str], chosen: Set[str]) -> bool:
    """Whether a class of `names` can do without `name` on its side."""
    held = name in chosen
    return sum((other in chosen) == held for other in names) > 1 or (held and len(names) == 1)
