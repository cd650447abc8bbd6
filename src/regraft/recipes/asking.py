"""Questions that a gallery is asked all the while something is done to it."""

import threading
import time
from collections import Counter
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import cycle
from pathlib import Path

from regraft.recipes.place import Place
from regraft.recipes.search import Searcher

PAUSE_S = 0.02
"""Between two questions: what is done to the gallery needs the processor too."""


@dataclass
class Asked:
    """What became of the questions."""

    answers: Counter[str] = field(default_factory=Counter[str])
    """How many were answered, by space."""
    spaces: list[str] = field(default_factory=list[str])
    """The spaces in which the gallery answered, in their order: one more after every switch."""
    slowest_s: float = 0.0
    """The longest time that a question had to wait, encoding included."""

    def note(self, space: str, duration_s: float) -> None:
        """Count an answer."""
        self.answers[space] += 1
        self.slowest_s = max(self.slowest_s, duration_s)
        if not self.spaces or self.spaces[-1] != space:
            self.spaces.append(space)


@contextmanager
def asking(gallery: Place | Path | str, pictures: Sequence[Path], k: int = 5) -> Generator[Asked]:
    """Ask a gallery about one picture after the other, from another thread, until the block ends.

    The first question is answered before the block begins, the last after it has ended. One that is not
    answered ends the asking, and its error is raised when the block ends.

    Args:
        gallery: The gallery's folder, or a place.
        pictures: At least one.
        k: Hits wanted.
    """
    asked, failures = Asked(), list[BaseException]()
    has_begun, has_ended = threading.Event(), threading.Event()
    search = Searcher(gallery)

    def ask() -> None:
        try:
            for picture in cycle(pictures):
                is_last = has_ended.wait(PAUSE_S)
                started_s = time.perf_counter()
                (answer,) = search([picture], k)
                asked.note(answer.space, time.perf_counter() - started_s)
                has_begun.set()
                if is_last:
                    return
        except BaseException as error:  # whatever it is, it belongs to whoever opened the block
            failures.append(error)
        finally:
            has_begun.set()

    thread = threading.Thread(target=ask, name="asking")
    thread.start()
    has_begun.wait()
    try:
        yield asked
    finally:
        has_ended.set()
        thread.join()
    if failures:
        raise failures[0]
