"""Small models, pictures by class and galleries of them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image

import regraft
from regraft.vision.modelfile import ModelCard, save_model
from regraft.vision.preprocess import Preprocess

CLASSES = ("ant", "bee", "cat")


def write_model(
    path: Path, seed: int, *, size_px: int = 16, num_classes: int = 3, labels: tuple[str, ...] = CLASSES
) -> Path:
    torch.manual_seed(seed)
    model = regraft.create_model("mobileone_mini", num_classes=num_classes).eval()
    card = ModelCard(
        architecture="mobileone_mini",
        num_classes=num_classes,
        preprocess=Preprocess(size_px=size_px, crop=1.0),
        labels=labels if num_classes else (),
    )
    save_model(path, regraft.fuse(model), card)
    return path


def write_pictures(folder: Path, num: int, *, seed: int = 0) -> list[Path]:
    """Noise, each class of a shade of its own, in a folder a class."""
    rng = np.random.default_rng(seed)
    paths: list[Path] = []
    for number in range(num):
        label = number % len(CLASSES)
        path = folder / CLASSES[label] / f"{number:03}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        shade = np.array([40, 90, 140], np.uint8)[(np.arange(3) + label) % 3]
        Image.fromarray(rng.integers(0, 110, (20, 20, 3), np.uint8) + shade).save(path)
        paths.append(path)
    return paths


def tree(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
