"""What a stored teacher costs: bytes a view, writing, reading, and the epoch of a student that reads it.

    python benchmarks/reinforce.py            # a minute; appends to benchmarks/results/reinforce.jsonl
    python benchmarks/render_reinforce.py     # writes the table in docs/reinforce.md

Needs no data: the format is measured on 1.28 million random answers over 1,000 classes, the epoch on random
pictures of 32 pixels that are kept in memory, where reading weighs most. Both epochs show views of one kind;
steps of one and of the other take turns in one process, and the ratio of their processor time is the result.
"""

import argparse
import itertools
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from record import append, environment
from regraft.augment.compose import Compose
from regraft.data.stream import Order
from regraft.tables.record import Recorder
from regraft.tables.table import Table
from regraft.tables.topk import TopK
from regraft.vision.batches import ImageBatches
from regraft.vision.blocks import ANSWERS, BLOCK_VIEWS
from regraft.vision.crops import Flip, PadCrop
from regraft.vision.data import ImageSet
from regraft.vision.models import create_model
from regraft.vision.preprocess import Preprocess
from regraft.vision.rand_augment import RandAugment
from regraft.vision.recorded import Recorded
from regraft.vision.reinforce import blocks_together, record
from regraft.vision.soft_targets import SoftTargets
from regraft.vision.tasks import Classify, Imitate
from regraft.vision.teachers import judge_of
from regraft.vision.variation import Variation
from regraft.vision.views import Views

RESULTS = Path(__file__).parent / "results" / "reinforce.jsonl"
NUM_CLASSES, K, NUM_PICTURES, NUM_DRAWS = 1000, 10, 25_600, 50
VIEW_ROWS = BLOCK_VIEWS // NUM_DRAWS * NUM_DRAWS
BLOCK_ROWS = blocks_together(VIEW_ROWS) * VIEW_ROWS
"""As many as a recording of so many draws appends at once."""
BATCH, READS = 256, 200
PREPROCESS = Preprocess(32, crop=1.0)
VARIATION = Variation(steps=Compose((PadCrop(4), Flip(), RandAugment())))
ROUNDS, STEPS = 12, 4


def random_answers(num: int) -> np.ndarray:
    logits = np.random.default_rng(0).standard_normal((num, NUM_CLASSES), np.float32) * 3
    return torch.from_numpy(logits).log_softmax(1).numpy()


def measure_format(folder: Path) -> dict[str, float]:
    column = TopK(K, NUM_CLASSES)
    ids = [f"class_{n % NUM_CLASSES:04}/picture_{n:07}.jpg" for n in range(NUM_PICTURES)]
    answers = random_answers(4096)
    started = time.process_time()
    records = column.encode(answers)
    encode_s = (time.process_time() - started) / len(answers)
    repeated = np.resize(records, BLOCK_ROWS)
    num_rows = NUM_PICTURES * NUM_DRAWS
    recorder = Recorder(folder, ids=ids, num_draws=NUM_DRAWS, columns={ANSWERS: column}, origin={})
    started, started_wall = time.process_time(), time.perf_counter()
    with recorder:
        for start in range(0, num_rows, BLOCK_ROWS):
            recorder.append({ANSWERS: repeated[: min(BLOCK_ROWS, num_rows - start)]})
        written_s, written_wall_s = time.process_time() - started, time.perf_counter() - started_wall
        table = recorder.seal()
    num_bytes = sum(path.stat().st_size for path in folder.iterdir())
    return {
        "record_bytes": column.dtype.itemsize,
        "bytes_a_draw": num_bytes / num_rows,
        "encode_us": 1e6 * encode_s,
        "records_a_cpu_s": num_rows / written_s,
        "records_a_wall_s": num_rows / written_wall_s,
        "read_us": read_us(table),
    }


def read_us(table: Table) -> float:
    """Processor time a sample of reading random batches as targets: the median batch, checksums known."""
    column = table.columns[ANSWERS]
    table.verify()
    draw = np.random.default_rng(1)
    times: list[float] = []
    for _ in range(READS):
        ranks, draws = draw.integers(NUM_PICTURES, size=BATCH), draw.integers(NUM_DRAWS, size=BATCH)
        started = time.process_time_ns()
        answers = column.decode(table.read(ANSWERS, ranks, draws))
        SoftTargets(*map(torch.from_numpy, (answers.ids, answers.probabilities, answers.rest)))
        times.append((time.process_time_ns() - started) / 1e3 / BATCH)
    return statistics.median(times)


def random_pictures(num: int) -> ImageSet:
    values = np.random.default_rng(0).integers(0, 256, (num, 32, 32, 3), np.uint8)
    pictures = tuple(map(Image.fromarray, values))
    classes = tuple(map(str, range(10)))
    return ImageSet(tuple(map(str, range(num))), pictures, tuple(n % 10 for n in range(num)), classes)


def measure_epoch(folder: Path) -> dict[str, float]:
    samples = random_pictures(2048)
    torch.manual_seed(0)
    teacher = judge_of(create_model("mobileone_mini", num_classes=10), PREPROCESS, samples.classes)
    views = Views(samples, PREPROCESS, VARIATION, 0, memory_bytes=2**30)
    table = record(folder, views, teacher, num_draws=2, top_k=K)
    model = create_model("mobileone_mini", num_classes=10).train().to(memory_format=torch.channels_last)
    order = Order(len(samples), 128, 0)
    plain = ImageBatches(samples, order, PREPROCESS, variation=VARIATION)
    targets = Recorded(table, samples, seed=0)
    reinforced = ImageBatches(samples, order, PREPROCESS, variation=VARIATION, targets=targets, view_seed=0)
    epochs = {
        "plain": steps_of(Classify(model, list), plain(0)),
        "reinforced": steps_of(Imitate(model, list), reinforced(0)),
    }
    times: dict[str, list[float]] = {name: [] for name in epochs}
    for number in range(ROUNDS):
        turn = list(epochs.items())
        for name, steps in turn if number % 2 else reversed(turn):
            times[name].append(sum(itertools.islice(steps, STEPS)) / STEPS)
    ratios = [ours / theirs for ours, theirs in zip(times["reinforced"], times["plain"], strict=True)]
    return {
        "plain_step_ms": 1e3 * statistics.median(times["plain"][1:]),
        "reinforced_step_ms": 1e3 * statistics.median(times["reinforced"][1:]),
        "epoch_ratio": statistics.median(ratios[1:]),
    }


def steps_of(task: Classify | Imitate, batches: Iterator[dict[str, Tensor]]) -> Iterator[float]:
    """Processor seconds of one step after the other: the batch, the loss and its gradient."""
    optimizer = torch.optim.SGD(task.model.parameters(), lr=0.0)
    while True:
        started = time.process_time()
        batch = next(batches)
        terms = task.loss(batch, 0)
        loss: Tensor = torch.stack(list(terms.values())).sum()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        yield time.process_time() - started


def main() -> None:
    argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    ).parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        line = environment("torch", "numpy") | {
            "num_rows": NUM_PICTURES * NUM_DRAWS,
            "k": K,
            "block_rows": BLOCK_ROWS,
            "num_classes": NUM_CLASSES,
            "batch": BATCH,
            **measure_format(Path(scratch) / "format"),
            **measure_epoch(Path(scratch) / "epoch"),
        }
    append(RESULTS, [line])
    for name, value in line.items():
        print(f"{name}: {value}")


if __name__ == "__main__":
    main()
