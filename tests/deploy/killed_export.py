"""Exports to the path given, and is killed on the way: python killed_export.py TARGET PATH WHERE."""

import os
import signal
import sys
from collections.abc import Iterator
from dataclasses import replace

import torch
from torch import Tensor, nn

from regraft.deploy.export import TARGETS, export


class Fatal(tuple[str, ...]):
    """Companions after whose first, already in its place, the process dies."""

    __slots__ = ()

    def __iter__(self) -> Iterator[str]:
        for suffix in super().__iter__():
            yield suffix
            os.kill(os.getpid(), signal.SIGKILL)


def fatal_inputs() -> Iterator[Tensor]:
    os.kill(os.getpid(), signal.SIGKILL)
    yield torch.zeros(1, 3, 8, 8)


def main(target: str, path: str, where: str) -> None:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    if where == "publish":
        TARGETS[target] = replace(TARGETS[target], companions=Fatal(TARGETS[target].companions))
    inputs = fatal_inputs() if where == "proof" else ()
    export(model, path, example=torch.zeros(1, 3, 8, 8), target=target, metadata={}, inputs=inputs)


if __name__ == "__main__":
    main(*sys.argv[1:])
