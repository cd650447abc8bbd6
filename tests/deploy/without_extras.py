"""Asks for every target on a machine where no extra is installed, and prints what is answered."""

import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType

EXTRAS = ("openvino", "executorch", "coremltools")


class Absent:
    """An import system that finds none of the extras."""

    def find_spec(
        self, name: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if name.partition(".")[0] in EXTRAS:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
        return None


def main(folder: str) -> None:
    import torch
    from torch import nn

    from regraft.deploy.export import TARGETS, export
    from regraft.errors import MissingExtra

    heavy = [name for name in (*EXTRAS, "onnx", "onnxscript", "onnxruntime") if name in sys.modules]
    print("loaded:", heavy)
    sys.meta_path.insert(0, Absent())
    model = nn.Conv2d(3, 8, 3).eval()
    for name, target in TARGETS.items():
        path = Path(folder) / f"model{target.suffix}"
        try:
            export(model, path, example=torch.zeros(1, 3, 8, 8), target=name, metadata={})
            print(name, "exported")
        except MissingExtra as error:
            print(name, str(error).replace("\n", ""))
        try:
            target.load(path)
            print(name, "loaded")
        except MissingExtra as error:
            print(name, str(error).replace("\n", ""))


if __name__ == "__main__":
    main(sys.argv[1])
