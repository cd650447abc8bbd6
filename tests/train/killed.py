"""Train, and kill, and train again. Run as a script: `killed.py DIRECTORY`.

One process imports everything and forks a child for each attempt, which is cheaper than a new
interpreter, and makes the kills land anywhere in the loop: the parent only counts events.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

import torch
from training_toys import train_pictures

from regraft.errors import Interrupted
from regraft.train.progress import progress

DONE, INTERRUPTED = 0, 3
STEPS = 60


def attempt(directory: Path) -> int:
    """Fork a child that trains in `directory`; return its process id."""
    child = os.fork()
    if child:
        return child
    status = 1
    try:
        train_pictures(directory, STEPS, watchers=[progress()])
        status = DONE
    except Interrupted:
        status = INTERRUPTED
    finally:
        os._exit(status)


def num_events(directory: Path) -> int:
    path = directory / "events.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def send_after(child: int, directory: Path, num: int, number: signal.Signals) -> int:
    """Send `number` to `child` once it has written `num` events; return how it ended."""
    ended, status = 0, 0
    while not ended and num_events(directory) < num:
        time.sleep(0.0005)
        ended, status = os.waitpid(child, os.WNOHANG)
    if not ended:
        os.kill(child, number)
        _, status = os.waitpid(child, 0)
    return os.waitstatus_to_exitcode(status)


def main(directory: Path) -> None:
    chance = random.Random(0)
    torch.set_num_threads(1)
    whole = os.waitstatus_to_exitcode(os.waitpid(attempt(directory / "whole"), 0)[1])
    assert whole == DONE, whole
    for number, name in ((signal.SIGKILL, "killed"), (signal.SIGTERM, "terminated")):
        target, ends = directory / name, list[int]()
        # Far enough apart that each attempt has restored its checkpoint and listens before it is stopped.
        for num in sorted(6 * step + 2 for step in chance.sample(range((STEPS - 8) // 6), 4)):
            ends.append(send_after(attempt(target), target, num, number))
        ends.append(os.waitstatus_to_exitcode(os.waitpid(attempt(target), 0)[1]))
        print(name, *ends)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
