"""Calling a function on a stream of numbers in other processes, with the answers in order."""

from collections.abc import Callable, Iterable, Iterator
from typing import Generic, TypeVar

import torch
from torch.utils.data import DataLoader, Dataset

from regraft.errors import RegraftError

Answer = TypeVar("Answer")


def in_processes(
    function: Callable[[int], Answer], numbers: Iterable[int], num_workers: int
) -> Iterator[Answer]:
    """Yield `function(n)` for each of `numbers`, which may be endless, in order.

    Args:
        function: Depends on nothing but its argument. Where processes are not forked it must pickle.
        numbers: Its arguments.
        num_workers: Processes; 0 calls it in this one.

    Raises:
        RegraftError: What the function raises, wherever it was called.
    """
    if num_workers == 0:
        yield from map(function, numbers)
        return
    # Its own generator, because a loader without one takes a number from torch's global stream, and
    # a resumed run would then draw other numbers than an uninterrupted one.
    answers = DataLoader(
        _Answers(function),
        batch_size=None,
        sampler=numbers,
        num_workers=num_workers,
        collate_fn=_as_it_is,
        generator=torch.Generator(),
    )
    for answer in answers:
        if isinstance(answer, RegraftError):
            raise answer
        yield answer


class _Answers(Dataset[Answer | RegraftError], Generic[Answer]):
    """The answers as a dataset, which is what torch's worker processes serve."""

    def __init__(self, function: Callable[[int], Answer]) -> None:
        self._function = function

    def __getitem__(self, index: int) -> Answer | RegraftError:
        try:
            return self._function(index)
        except RegraftError as error:
            return error  # torch would wrap it, and its advice would be lost


def _as_it_is(answer: Answer) -> Answer:
    return answer
