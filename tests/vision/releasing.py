"""Reinforcements in the published form, made on the spot, and a slow replay of what their records mean.

The replay works as the published generator did: torchvision's transforms on tensors, boxes in pixels, one
view at a time.
"""

import pickle
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision.datasets import ImageFolder
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F
from torchvision.transforms.autoaugment import RandAugment, _apply_op
from torchvision.transforms.v2 import functional as F2

SIZE_PX, PAD_PX, NUM_DRAWS, TOP_K, NUM_CLASSES = 32, 4, 6, 3, 4

SQUARE = {"random_resized_crop": {"enable": True, "size": SIZE_PX}, "random_horizontal_flip": {"p": 0.5}}
STRONG = {"rand_augment": {"enable": True, "p": 1.0}, "random_erase": {"enable": True, "p": 0.25}}
MIXED = {
    "mixup": {"enable": True, "alpha": 1.0, "div_by": 2.0, "p": 0.5},
    "cutmix": {"enable": True, "alpha": 1.0, "p": 0.5},
}
PIPELINES: dict[str, dict[str, dict[str, Any]]] = {
    "crop": SQUARE,
    "crop_mix": SQUARE | MIXED,
    "strong": SQUARE | STRONG,
    "strong_mix": SQUARE | STRONG | MIXED,
    "shift": {
        "resize": {"size": SIZE_PX},
        "random_crop": {"size": SIZE_PX, "padding": PAD_PX},
        "random_horizontal_flip": {"enable": True, "p": 0.5},
    }
    | STRONG,
}


@dataclass
class Release:
    """A published folder, and all that is in it."""

    folder: Path
    pictures: Path
    stages: dict[str, dict[str, Any]]
    records: list[list[dict[str, Any]]]
    answers: np.ndarray
    """Probabilities of all classes, by picture and draw."""

    def replay(self, number: int, draw: int) -> Tensor:
        """What the teacher saw, 0 to 255."""
        files = ImageFolder(str(self.pictures)).samples
        params = list(self.records[number][draw]["params"])
        partner = params.pop(0) if "mixup" in self.stages else None
        numbers = [number] if partner is None else [number, partner]
        views: list[Tensor] = []
        for place, which in enumerate(numbers):
            mine = iter([p[place] if partner is not None and place_in_pair(p) else p for p in params])
            views.append(self.view(files[which][0], mine))
        return views[0] if partner is None else mixed(*views, *params[-2:])

    def view(self, file: str, params: Any) -> Tensor:
        x = F.pil_to_tensor(read(file))
        if "random_crop" in self.stages:
            x = F.pil_to_tensor(F.resize(read(file), SIZE_PX))
            top, left = next(params)
            x = F.crop(F.pad(x, [PAD_PX] * 4), top, left, SIZE_PX, SIZE_PX)
        else:
            x = F2.resized_crop(
                x, *next(params), [SIZE_PX, SIZE_PX], InterpolationMode.BILINEAR, antialias=True
            )
        x = F.hflip(x) if next(params) else x
        if "rand_augment" in self.stages:
            for operation, magnitude in next(params) or []:
                name = list(RandAugment()._augmentation_space(31, (SIZE_PX, SIZE_PX)))[operation]
                x = _apply_op(x, name, magnitude, InterpolationMode.NEAREST, None)
        x = x.float()
        if "random_erase" in self.stages and (box := next(params)) is not None:
            top, left, height, width = box
            x[:, top : top + height, left : left + width] = 0
        return x


def read(file: str | Path) -> Image.Image:
    """As torchvision reads a picture of a folder."""
    with Image.open(file) as image:
        return image.convert("RGB")


def place_in_pair(value: object) -> bool:
    """All but what mixes is stored in pairs where there is a partner."""
    return isinstance(value, list) and len(value) == 2


def mixed(x: Tensor, partner: Tensor, share: float | None, pasted: list[Any] | None) -> Tensor:
    if share is not None:
        x = share * x + (1 - share) * partner
    if pasted is not None:
        x = x.clone()
        _, top, left, bottom, right = pasted
        x[:, top:bottom, left:right] = partner[:, top:bottom, left:right]
    return x


def write_pictures(root: Path, *, square: bool = False) -> Path:
    """Pictures of many sizes, one a folder deeper than the others, which sorts otherwise as a whole path."""
    draw = np.random.default_rng(0)
    for name in "abcd"[:NUM_CLASSES]:
        for stem in ("1", "10", "2", "B", "a/0", "a-b/0"):
            path = root / name / f"{stem}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            noise = draw.integers(0, 256, (5, 6, 3), np.uint8)
            width, height = (45, 45) if square else draw.integers(30, 90, 2).tolist()
            Image.fromarray(noise).resize((width, height), Image.Resampling.BICUBIC).save(path)
    return root


def write_release(folder: Path, pictures: Path, stages: dict[str, dict[str, Any]], seed: int = 0) -> Release:
    """Draw records for every picture and write them as they were published."""
    draw = np.random.default_rng(seed)
    files = ImageFolder(str(pictures)).samples
    sizes = [read(file).size for file, _ in files]
    answers = np.stack([[answer(draw, label) for _ in range(NUM_DRAWS)] for _, label in files])
    records = [
        [
            {"params": draw_params(draw, number, sizes, stages), "prob": listed(answers[number, k])}
            for k in range(NUM_DRAWS)
        ]
        for number in range(len(files))
    ]
    folder.mkdir()
    config = {
        "seed": None,
        "reinforce": {
            "num_samples": NUM_DRAWS,
            "topk": TOP_K,
            "compress": True,
            "image_augmentation": {"uint8": {"enable": True}} | stages | {"normalize": {"mean": [0.5]}},
        },
    }
    torch.save(config, folder / "config.pth.tar")
    for number, content in enumerate(records):
        save(folder, number, content, number % 3)
    return Release(folder, pictures, stages, records, answers)


def save(folder: Path, number: int, content: object, way: int = 0) -> None:
    """In one of the three ways of writing a pickle."""
    path, whole = folder / f"{number}.pth.tar", (number, content)
    if way == 2:
        path.write_bytes(pickle.dumps(whole, protocol=4))
    else:
        torch.save(whole, path, pickle_protocol=4, _use_new_zipfile_serialization=way == 0)


def answer(draw: np.random.Generator, label: int) -> np.ndarray:
    """What a teacher says that is mostly right."""
    logits = draw.normal(0, 2, NUM_CLASSES) + 6 * (np.arange(NUM_CLASSES) == label)
    return (np.exp(logits) / np.exp(logits).sum()).astype(np.float32)


def listed(probabilities: np.ndarray) -> tuple[list[float], list[int]]:
    best = np.argpartition(probabilities, -TOP_K)[-TOP_K:]
    return probabilities[best].tolist(), best.tolist()


def draw_params(
    draw: np.random.Generator, number: int, sizes: list[tuple[int, int]], stages: dict[str, dict[str, Any]]
) -> list[Any]:
    mixes = [draw_mixup(draw), draw_cutmix(draw)] if "mixup" in stages else []
    if not any(mix is not None for mix in mixes):
        alone = draw_view(draw, sizes[number], stages)
        return [None, *alone, *mixes] if mixes else alone
    partner = int(draw.integers(len(sizes)))
    both = [draw_view(draw, sizes[which], stages) for which in (number, partner)]
    return [partner, *map(list, zip(*both, strict=True)), *mixes]


def draw_view(
    draw: np.random.Generator, size: tuple[int, int], stages: dict[str, dict[str, Any]]
) -> list[Any]:
    params: list[Any] = []
    if "random_crop" in stages:
        params.append(tuple(draw.integers(0, 2 * PAD_PX + 1, 2).tolist()))
    else:
        params.append(draw_box(draw, size[1], size[0]))
    params.append(bool(draw.integers(2)))
    if "rand_augment" in stages:
        params.append([draw_operation(draw) for _ in range(2)] if draw.integers(8) else None)
    if "random_erase" in stages:
        params.append(draw_box(draw, SIZE_PX, SIZE_PX) if draw.integers(2) else None)
    return params


def draw_box(draw: np.random.Generator, height: int, width: int) -> tuple[int, int, int, int]:
    high, wide = int(draw.integers(1, height + 1)), int(draw.integers(1, width + 1))
    return int(draw.integers(height - high + 1)), int(draw.integers(width - wide + 1)), high, wide


def draw_operation(draw: np.random.Generator) -> tuple[int, float]:
    operation = int(draw.integers(14))
    magnitudes, signed = list(RandAugment()._augmentation_space(31, (SIZE_PX, SIZE_PX)).values())[operation]
    magnitude = float(magnitudes[9].item()) if magnitudes.ndim else 0.0
    return operation, -magnitude if signed and draw.integers(2) else magnitude


def draw_mixup(draw: np.random.Generator) -> float | None:
    return draw.beta(1.0, 1.0) / 2 if draw.integers(2) else None


def draw_cutmix(draw: np.random.Generator) -> list[Any] | None:
    if draw.integers(2):
        return None
    share = draw.beta(1.0, 1.0)
    half, centre = int(SIZE_PX * np.sqrt(1 - share)) // 2, draw.integers(0, SIZE_PX, 2)
    return [share, *np.clip(centre - half, 0, SIZE_PX), *np.clip(centre + half, 0, SIZE_PX)]
