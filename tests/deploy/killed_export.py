"""Exports to the path given, and is killed on the way: python killed_export.py TARGET PATH WHERE."""

import os
import signal
import sys
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from regraft.deploy.export import export


def die_before(place: str) -> None:
    """Kill this process when something is about to be renamed to `place`, the last step of an export."""

    def watch(event: str, arguments: tuple[object, ...]) -> None:
        if event == "os.rename" and str(arguments[1]) == place:
            os.kill(os.getpid(), signal.SIGKILL)

    sys.addaudithook(watch)


def fatal_inputs() -> Iterator[Tensor]:
    os.kill(os.getpid(), signal.SIGKILL)
    yield torch.zeros(1, 3, 8, 8)


def main(target: str, path: str, where: str) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    if where == "publish":
        die_before(path)
    inputs = fatal_inputs() if where == "proof" else ()
    export(model, path, example=torch.zeros(1, 3, 8, 8), target=target, metadata={}, inputs=inputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
