"""Record, and kill, and record again. Run as a script: `killed.py DIRECTORY NUM_KILLS`.

One process imports everything and forks a child for each attempt. It kills the child after a random time,
reads what was acknowledged until then, and looks whether the next attempt knows of it. Tables are recorded
until there were kills enough, however fast the machine is. It prints, for each table, how many attempts were
killed before they had begun, while they recorded, and after the last row.
"""

import os
import random
import signal
import sys
import time
from pathlib import Path

from table_toys import Toy, contents

TOY = Toy(num_draws=30)


def record(folder: Path, acknowledge: int) -> None:
    """Record what is missing, and write each number of rows that is kept down a pipe."""
    with TOY.recorder(folder) as recorder:
        os.write(acknowledge, b"%d\n" % recorder.num_rows)
        while recorder.num_rows < TOY.num_rows:
            recorder.append(TOY.block(recorder.num_rows))
            os.write(acknowledge, b"%d\n" % recorder.num_rows)
        recorder.seal()


def attempt(folder: Path, seconds: float) -> tuple[int, list[int]]:
    """Record in a child for some seconds; return how it ended, and what it acknowledged."""
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        try:
            record(folder, writing)
            os._exit(0)
        finally:
            os._exit(1)
    os.close(writing)
    time.sleep(seconds)
    os.kill(child, signal.SIGKILL)  # which a child that has ended, and was not waited for, does not feel
    _, status = os.waitpid(child, 0)
    with os.fdopen(reading, "rb") as pipe:
        return os.waitstatus_to_exitcode(status), [int(line) for line in pipe.read().split()]


def until_sealed(folder: Path, chance: random.Random, longest_s: float) -> list[int]:
    """Record one table; return how many attempts were killed before, while and after rows were recorded."""
    kills, kept = [0, 0, 0], 0
    while True:
        ended, acknowledged = attempt(folder, chance.uniform(0, longest_s))
        # What is on the disk may be one block ahead of what the dead could still tell.
        one_more = kept + len(TOY.block(kept)["params"])
        assert not acknowledged or acknowledged[0] in (kept, one_more), (kept, acknowledged)
        kept = acknowledged[-1] if acknowledged else kept
        if ended == 0:
            assert kept == TOY.num_rows, kept
            return kills
        assert ended == -signal.SIGKILL, ended
        kills[0 if not acknowledged else 2 if kept == TOY.num_rows else 1] += 1


def main(directory: Path, num_kills: int) -> None:
    chance = random.Random(0)
    started = time.perf_counter()
    TOY.record(directory / "whole")
    whole_s, killed = time.perf_counter() - started, 0
    expected = contents(directory / "whole")
    for number in range(1000):
        folder = directory / str(number)
        kills = until_sealed(folder, chance, whole_s / 3)
        found = contents(folder)
        assert found.keys() == expected.keys(), found.keys()
        assert found == expected, [name for name in found if found[name] != expected[name]]
        print(*kills)
        killed += sum(kills)
        if killed >= num_kills:
            return


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
