"""Calling a function on a stream of numbers in other processes, with the answers in order."""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

Answer = TypeVar("Answer")


def in_processes(
    function: Callable[[int], Answer], numbers: Iterable[int], num_workers: int
) -> Iterator[Answer]:
    """Yield `function(n)` for each of `numbers`, which may be endless, in order.

    Args:
        function: Depends on nothing but its argument. Where processes are not forked it must pickle.
        numbers: Its arguments.
        num_workers: Processes; 0 calls it in this one.
    """
    if num_workers == 0:
        yield from map(function, numbers)
        return
    # Its own generator, because a loader without one takes a number from torch's global stream, and
    # a resumed run would then draw other numbers than an uninterrupted one.
    yield from DataLoader(
        _Answers(function),
        batch_size=None,
        sampler=numbers,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        generator=torch.Generator(),
    )


class _Answers(Dataset[Answer], Generic[Answer]):
    """The answers as a dataset, which is what torch's worker processes serve."""

    def __init__(self, function: Callable[[int], Answer]) -> None:
        self._function = function

    def __getitem__(self, index: int) -> Answer:
        return self._function(index)


def _as_it_is(answer: Answer) -> Answer:
    return answer
