"""The encoders that `upgrade.py` replaces by one another: small ResNets on CIFAR-10, trained here.

    python benchmarks/upgrade_backbones.py CIFAR10 CACHE --seed 0

Makes CACHE/<name>-<seed>.npz for the encoders below: features of all 60,000 pictures, and the classifier.
Interrupted, it goes on where it was. About 20 minutes a seed on one core.

    old_a    classes 0 to 4 only, 25,000 pictures
    old_b    10,000 pictures of all classes
    new      all 50,000 pictures
    side_a   SimCLR without labels on the 25,000 pictures of old_a
    side_b   SimCLR without labels on the 10,000 pictures of old_b
"""

import argparse
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from regraft.augment.compose import Compose
from regraft.data.stream import Order
from regraft.files import replacing
from regraft.train import processes
from regraft.train.loop import fit
from regraft.train.run import Run
from regraft.train.schedule import Schedule, param_groups
from regraft.train.task import Task
from regraft.vision.batches import ImageBatches, OrderedBatches
from regraft.vision.contrast import Projected, RandomView, TellApart
from regraft.vision.crops import Flip, PadCrop
from regraft.vision.data import ImageSet, from_folder
from regraft.vision.preprocess import Preprocess
from regraft.vision.tasks import Classify
from regraft.vision.variation import Variation

PREPROCESS = Preprocess(size_px=32, crop=1.0, mean=(0.4914, 0.4822, 0.4465), std=(0.247, 0.2435, 0.2616))
DIMENSION = 128
NUM_CLASSES = 10
BATCH = 128


class Block(nn.Module):
    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(channels),
        )
        keeps_shape = stride == 1 and in_channels == channels
        self.skip = nn.Identity() if keeps_shape else nn.Conv2d(in_channels, channels, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.skip(x))


class ResNet(nn.Module):
    """Three blocks, then 128 features that are never negative, then a classifier without bias."""

    def __init__(self, width: int, num_classes: int) -> None:
        super().__init__()
        self.encoder = nn.Sequential(
            nn.Conv2d(3, width, 3, 1, 1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(),
            Block(width, width, 1),
            Block(width, 2 * width, 2),
            Block(2 * width, 4 * width, 2),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(4 * width, DIMENSION),
            nn.ReLU(),
        )
        self.head = nn.Linear(DIMENSION, num_classes, bias=False)

    def forward(self, x: Float[Tensor, "b c h w"]) -> Float[Tensor, "b n"]:
        return self.head(self.encoder(x))


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cifar10", type=Path)
    parser.add_argument("cache", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="+", choices=ENCODERS, default=list(ENCODERS))
    arguments = parser.parse_args()
    train, test = from_folder(arguments.cifar10 / "train"), from_folder(arguments.cifar10 / "test")
    for name in arguments.only:
        out = arguments.cache / f"{name}-{arguments.seed}.npz"
        if not out.exists():
            ENCODERS[name](train, test, arguments.seed, arguments.cache / "runs" / out.stem, out)
            print(out, flush=True)


def ten_thousand(samples: ImageSet, seed: int) -> ImageSet:
    """10,000 pictures, 1,000 a class, chosen by the seed."""
    generator = np.random.default_rng(seed)
    labels = np.array(samples.labels)
    chosen = [generator.choice(np.flatnonzero(labels == c), 1000, replace=False) for c in range(NUM_CLASSES)]
    return samples.take(sorted(int(index) for index in np.concatenate(chosen)))


def five_classes(samples: ImageSet, seed: int) -> ImageSet:
    """The pictures of classes 0 to 4."""
    return samples.take(index for index, label in enumerate(samples.labels) if label < 5)


def everything(samples: ImageSet, seed: int) -> ImageSet:
    return samples


Choose = Callable[[ImageSet, int], ImageSet]


def classifier(choose: Choose, *, width: int, epochs: int) -> Callable[..., None]:
    def train_it(train: ImageSet, test: ImageSet, seed: int, run: Path, out: Path) -> None:
        samples, held_out = choose(train, seed), test
        torch.manual_seed(seed)
        model = ResNet(width, NUM_CLASSES)
        judged = OrderedBatches(held_out, PREPROCESS, batch_size=500)
        task = Classify(model, lambda: judged, label_smoothing=0.1)
        grow(
            task,
            samples,
            seed,
            run,
            epochs=epochs,
            peak_lr=0.2,
            variation=Variation(steps=Compose((PadCrop(), Flip()))),
        )
        weight = model.head.weight.detach().float().numpy()
        write(out, model.encoder, train, test, head=weight)

    return train_it


def without_labels(choose: Choose, *, width: int, pictures_seen: int) -> Callable[..., None]:
    def train_it(train: ImageSet, test: ImageSet, seed: int, run: Path, out: Path) -> None:
        samples = choose(train, seed)
        torch.manual_seed(seed)
        model = Projected(ResNet(width, NUM_CLASSES).encoder, DIMENSION)
        judged = OrderedBatches(test.take(range(0, len(test), 5)), PREPROCESS, batch_size=256)
        task = TellApart(model, RandomView(PREPROCESS), lambda: judged)
        epochs = pictures_seen / len(samples)
        grow(task, samples, seed, run, epochs=epochs, peak_lr=0.1, variation=Variation())
        write(out, model.encoder, train, test)

    return train_it


def grow(
    task: Task,
    samples: ImageSet,
    seed: int,
    run: Path,
    *,
    epochs: float,
    peak_lr: float,
    variation: Variation,
    batch: int = BATCH,
) -> None:
    task.model.to(memory_format=torch.channels_last)
    steps = int(epochs * len(samples)) // batch
    schedule = Schedule(
        steps=steps,
        peak_lr=peak_lr,
        warmup_steps=steps // 10,
        weight_decay=5e-4,
        checkpoint_every=200,
        seed=seed,
    )
    batches = ImageBatches(samples, Order(len(samples), batch, seed), PREPROCESS, variation=variation)
    optimizer = torch.optim.SGD(param_groups(task.model), lr=peak_lr, momentum=0.9, nesterov=True)
    recipe = {"steps": steps, "seed": seed, "num_samples": len(samples), "peak_lr": peak_lr}
    fabric = processes.launch(precision="bf16-mixed")
    fit(task, batches, optimizer, schedule, Run(run, recipe), fabric=fabric)


@torch.inference_mode()
def write(out: Path, encoder: nn.Module, train: ImageSet, test: ImageSet, **more: np.ndarray) -> None:
    encoder.eval()
    arrays = dict(more)
    for name, samples in {"train": train, "test": test}.items():
        arrays[name] = np.concatenate([encoder(image).numpy() for image in pictures(samples)])
        arrays[f"{name}_labels"] = np.array(samples.labels)
    arrays["train_mirrored"] = np.concatenate([encoder(image.flip(-1)).numpy() for image in pictures(train)])
    out.parent.mkdir(parents=True, exist_ok=True)
    with replacing(out) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)


def pictures(samples: ImageSet) -> Iterator[Tensor]:
    for batch in OrderedBatches(samples, PREPROCESS, batch_size=500):
        yield batch["image"].to(memory_format=torch.channels_last)


ENCODERS = {
    "old_a": classifier(five_classes, width=16, epochs=6),
    "old_b": classifier(ten_thousand, width=16, epochs=12),
    "new": classifier(everything, width=24, epochs=5),
    "side_b": without_labels(ten_thousand, width=16, pictures_seen=140_000),
    "side_a": without_labels(five_classes, width=16, pictures_seen=140_000),
}

if __name__ == "__main__":
    main()
