"""Whether learned ranges reach the target they are given.

    OMP_NUM_THREADS=1 python benchmarks/ranges.py --images FOLDER [--steps 500]

A network of one convolution is trained beside the ranges, on pictures of 32 pixels, while the target goes
from 40 dB to its end in four fifths of the steps. Expected beforehand: the mean error over held-out pictures
is within 0.5 dB of 40, 30, 20 and 10 dB, under SGD with momentum as under AdamW, with the paper's operations
as with all, for three seeds. The released parameterisation and loss, with the network's own optimizer and
decay, as published, miss it; by how much is reported.

One JSON line a case is appended to results/ranges.jsonl. `reachable_db` is what the narrowest, the initial
and the widest ranges come to on the same pictures.
"""

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from record import append, environment
from regraft.train.journal import read_events
from regraft.train.loop import fit
from regraft.train.run import Run
from regraft.train.schedule import Schedule, param_groups
from regraft.vision.images import read_image
from regraft.vision.preprocess import Preprocess
from regraft.vision.range_bounds import HALF_WIDTHS, RELEASED
from regraft.vision.range_operations import OPERATIONS, PAPER
from regraft.vision.range_targets import DecibelTarget, ReleasedTarget, psnr_db
from regraft.vision.range_task import WithLearnedRanges, range_group
from regraft.vision.ranges import LearnedRanges
from regraft.vision.tasks import Classify

RESULTS = Path(__file__).parent / "results" / "ranges.jsonl"
PREPROCESS = Preprocess(size_px=32, crop=1.0)
TARGETS_DB = (40.0, 30.0, 20.0, 10.0)
SEEDS = (0, 1, 2)
NUM_TRAINED_ON, NUM_HELD_OUT = 2000, 1000
SETS = {"paper": PAPER, "all": tuple(OPERATIONS.values())}
PARAMETERISATIONS = {"half_widths": HALF_WIDTHS, "released": RELEASED}


@dataclass(frozen=True)
class Case:
    parameterisation: str
    optimizer: str
    operations: str
    target_db: float


@dataclass(frozen=True)
class Pictures:
    pixels: Tensor
    labels: Tensor
    held_out: Tensor


CASES = [
    Case(parameterisation, optimizer, operations, target_db)
    for parameterisation, operations in (
        ("half_widths", "paper"),
        ("half_widths", "all"),
        ("released", "paper"),
    )
    for optimizer in ("sgd", "adamw")
    for target_db in TARGETS_DB
]


def main() -> None:
    arguments = parse()
    pictures = read(arguments.images)
    for case in CASES:
        found = bench(case, pictures, arguments.steps, arguments.batch_size)
        append(RESULTS, [{"case": "ranges", **asdict(case), **found, **environment("torch", "torchvision")}])
        print(case, found["reached_db"], found["largest_miss_db"], flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--images", type=Path, required=True, help="A folder with a folder of JPEGs a class.")
    parser.add_argument("--steps", type=int, default=500)
    parser.add_argument("--batch-size", type=int, default=128)
    return parser.parse_args()


def read(folder: Path) -> Pictures:
    """The same few pictures of every class, in a fixed random order."""
    classes = sorted(path for path in folder.iterdir() if path.is_dir())
    each = -(-(NUM_TRAINED_ON + NUM_HELD_OUT) // len(classes))
    files = [
        (path, label) for label, place in enumerate(classes) for path in sorted(place.glob("*.jpg"))[:each]
    ]
    order = torch.randperm(len(files), generator=torch.Generator().manual_seed(0)).tolist()
    pixels = torch.stack([PREPROCESS.frame(read_image(files[index][0])) for index in order])
    labels = torch.tensor([files[index][1] for index in order])
    return Pictures(pixels[:NUM_TRAINED_ON], labels[:NUM_TRAINED_ON], pixels[NUM_TRAINED_ON:].float() / 255)


def bench(case: Case, pictures: Pictures, steps: int, batch_size: int) -> dict[str, object]:
    reached, off_db = list[float](), list[float]()
    for seed in SEEDS:
        task = build(case, steps, seed)
        off_db.append(train(task, case.optimizer, pictures, steps, batch_size, seed))
        reached.append(reached_db(task.model.ranges, pictures.held_out))
    return {
        "reached_db": reached,
        "largest_miss_db": max(abs(db - case.target_db) for db in reached),
        "largest_miss_halfway_db": max(off_db),
        "reachable_db": reachable_db(case, pictures.held_out),
        "ranges_of_last_seed": {name: [low, high] for name, low, high in task.model.ranges.ranges()},
        "seeds": SEEDS,
        "steps": steps,
        "batch_size": batch_size,
        "size_px": PREPROCESS.size_px,
        "pictures": len(pictures.pixels),
        "held_out": len(pictures.held_out),
    }


def build(case: Case, steps: int, seed: int) -> WithLearnedRanges:
    torch.manual_seed(seed)
    stem = nn.Sequential(nn.Conv2d(3, 8, 3, 4), nn.BatchNorm2d(8), nn.ReLU(), nn.AdaptiveAvgPool2d(2))
    task = Classify(nn.Sequential(stem, nn.Flatten(), nn.Linear(32, 10)), unseen)
    ranges = LearnedRanges(SETS[case.operations], PARAMETERISATIONS[case.parameterisation])
    published = case.parameterisation == "released"
    kind = ReleasedTarget if published else DecibelTarget
    target = kind(end_db=case.target_db, steps=4 * steps // 5)
    return WithLearnedRanges(task, ranges, PREPROCESS, target, task_gradient=published)


def unseen() -> list[dict[str, Tensor]]:
    """The network is not what is judged here; one picture is enough."""
    return [{"image": torch.zeros(1, 3, 32, 32), "label": torch.zeros(1, dtype=torch.int64)}]


def train(
    task: WithLearnedRanges, optimizer: str, pictures: Pictures, steps: int, batch_size: int, seed: int
) -> float:
    """Train; return by how many dB the ranges were off halfway through."""

    def batches(step: int) -> Iterator[dict[str, Tensor]]:
        while True:
            draw = torch.Generator().manual_seed(1000 * seed + step)
            chosen = torch.randperm(len(pictures.pixels), generator=draw)[:batch_size]
            image = PREPROCESS.normalise(pictures.pixels[chosen])
            yield {"image": image, "label": pictures.labels[chosen]}
            step += 1

    peak_lr, decay = (0.1, 1e-4) if optimizer == "sgd" else (2e-3, 0.05)
    schedule = Schedule(
        steps=steps,
        peak_lr=peak_lr,
        warmup_steps=steps // 20,
        weight_decay=decay,
        evaluate_every=steps // 2,
        seed=seed,
    )
    with tempfile.TemporaryDirectory() as folder:
        fit(task, batches, optimizer_of(task, optimizer), schedule, Run(Path(folder), {}))
        halfway = next(event.evaluation for event in read_events(Path(folder)) if event.evaluation)
    return abs(halfway["range_psnr_db"] - halfway["range_target_db"])


def optimizer_of(task: WithLearnedRanges, kind: str) -> Optimizer:
    ranges = task.model.ranges
    if ranges.strength.requires_grad:
        own = range_group(ranges, kind)
    else:  # As published: in the network's own group, decayed.
        own = {"params": [ranges.theta_low, ranges.theta_high], "decayed": True}
    groups = [*param_groups(task.model.network), own]
    return SGD(groups, lr=0.1, momentum=0.9) if kind == "sgd" else AdamW(groups, lr=0.1)


@torch.no_grad()
def reached_db(ranges: LearnedRanges, held_out: Tensor, passes: int = 8) -> float:
    """Of the mean error over all pictures, each varied anew in each pass."""
    draw, errors = torch.Generator().manual_seed(0), list[Tensor]()
    for _ in range(passes):
        for x in held_out.split(250):
            errors.append((ranges(x, ranges.draw(x, draw)) - x).square().mean((1, 2, 3)))
    return float(psnr_db(torch.cat(errors).mean()))


def reachable_db(case: Case, held_out: Tensor) -> list[float]:
    ranges = LearnedRanges(SETS[case.operations], PARAMETERISATIONS[case.parameterisation])
    initial = reached_db(ranges, held_out)
    # The lower end goes outwards with its theta, and the released one inwards.
    sign = -1 if case.parameterisation == "released" else 1
    ends = list[float]()
    for outwards in (-12.0, 12.0):
        ranges.theta_low.data.fill_(sign * outwards)
        ranges.theta_high.data.fill_(outwards)
        ends.append(reached_db(ranges, held_out))
    return [ends[0], initial, ends[1]]


if __name__ == "__main__":
    main()
