"""Stopping when asked, at a step's end."""

import signal
import threading
from types import FrameType
from typing import final

SIGNALS = (signal.SIGTERM, signal.SIGINT)
NAMES = {signal.SIGINT: "Ctrl-C", signal.SIGTERM: "SIGTERM"}


@final
class StopSignals:
    """Remembers that SIGTERM or Ctrl-C came, while it is entered.

    The first signal is only noted. It also puts the old handlers back, so that a second one acts
    as if nobody were listening: at once.

    Args:
        hold: Note every signal instead. Launchers of several processes repeat a signal that the
            terminal has sent to each process already, and kill by themselves whoever takes too long.
    """

    def __init__(self, *, hold: bool) -> None:
        self.received: signal.Signals | None = None
        self._hold = hold
        self._previous: dict[signal.Signals, signal._HANDLER] = {}  # pyright: ignore[reportPrivateUsage]

    @property
    def name(self) -> str:
        """The signal that came, as a person knows it."""
        return "another process" if self.received is None else NAMES[self.received]

    def __enter__(self) -> "StopSignals":
        # Python lets only the main thread listen; a run in another thread is stopped by its owner.
        if threading.current_thread() is threading.main_thread():
            self._previous = {number: signal.signal(number, self._note) for number in SIGNALS}
        return self

    def __exit__(self, *_: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    def _note(self, number: int, _: FrameType | None) -> None:
        self.received = signal.Signals(number)
        if not self._hold:
            self.__exit__()
