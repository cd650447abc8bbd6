"""Small pictures, a small teacher, and a recording that can be killed: `reinforcing.py FOLDER TABLE`."""

import sys
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from regraft.augment.compose import Compose
from regraft.vision.crops import Flip, RandomResizedCrop
from regraft.vision.data import ImageSet, from_folder
from regraft.vision.mixing import Mix
from regraft.vision.preprocess import Preprocess
from regraft.vision.rand_augment import RandAugment
from regraft.vision.reinforce import record
from regraft.vision.teachers import Judge, judge_of
from regraft.vision.variation import Variation
from regraft.vision.views import Views

PREPROCESS = Preprocess(16, crop=1.0)
MIX = Mix(cutmix=1.0, chance=0.5)
VARIED = Variation(RandomResizedCrop((0.3, 1.0)), Compose((Flip(), RandAugment())), MIX)
NUM_CLASSES = 4


def write_pictures(root: Path, num: int = 6) -> ImageSet:
    generator = np.random.default_rng(0)
    for name in "abcd"[:NUM_CLASSES]:
        (root / name).mkdir(parents=True)
        for i in range(num):
            noise = generator.integers(0, 256, (5, 4 + i, 3), np.uint8)
            Image.fromarray(noise).resize((30 + i, 24), Image.Resampling.BICUBIC).save(
                root / name / f"{i}.png"
            )
    return from_folder(root)


class Small(nn.Module):
    """A classifier with opinions."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        torch.manual_seed(seed)
        self.conv, self.head = nn.Conv2d(3, 8, 3, 2), nn.Linear(8, NUM_CLASSES, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        features = self.conv(x).relu().mean((2, 3))
        return 30 * self.head(features / features.norm(dim=1, keepdim=True))


def teacher(samples: ImageSet, seed: int = 0) -> Judge:
    return judge_of(Small(seed), PREPROCESS, samples.classes)


def views(samples: ImageSet, variation: Variation = VARIED, seed: int = 5) -> Views:
    return Views(samples, PREPROCESS, variation, seed, memory_bytes=2**20)


if __name__ == "__main__":
    torch.set_num_threads(1)
    pictures = from_folder(sys.argv[1])
    record(Path(sys.argv[2]), views(pictures), teacher(pictures), num_draws=120, top_k=3)
