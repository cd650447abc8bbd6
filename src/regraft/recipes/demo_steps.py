"""The steps of `regraft demo`. Each changes the demo's folder and returns what it found."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, replace
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from regraft.deploy.cost import count
from regraft.deploy.export import TARGETS, export
from regraft.deploy.latency import measure
from regraft.deploy.parity import Function, Parity, compare
from regraft.errors import ParityError
from regraft.files import replacing
from regraft.nn.reparam import fuse
from regraft.recipes.graph import count_kinds, draw, operations
from regraft.recipes.parts import load_parts, paths, save_parts, split
from regraft.recipes.precision import Labelled, measure_precision, surest_mistakes, typical
from regraft.recipes.proof import proof_inputs
from regraft.recipes.recipe import Recipe
from regraft.recipes.small import mobileone_mini
from regraft.recipes.story import Follower, Record, Result, Step, Story
from regraft.recipes.training import grow
from regraft.tables.table import Table
from regraft.train.journal import read_events
from regraft.vision.backbone import Backbone
from regraft.vision.data import from_folder
from regraft.vision.inspection import inspect
from regraft.vision.modelfile import ModelCard, load_model, save_model

if TYPE_CHECKING:
    from regraft.recipes.search import Answer

Earlier = Mapping[str, Record]

RUNTIMES = {"onnx": ("onnxruntime", "ONNX Runtime"), "openvino": ("openvino", "OpenVINO")}
"""Export targets, with the package that each needs and its name for people."""
BATCH_SIZES = (1, 8)
REPEATS, WARMUP = 50, 10
NUM_HITS = 5
NUM_TYPICAL, NUM_MISTAKES = 5, 5


def look(story: Story, earlier: Earlier, follower: Follower) -> Result:
    """Decode every picture, and decide which is for what."""
    if story.images is None:
        write_digits(story.pictures)
    good, inspection = inspect(from_folder(story.pictures), cache=story.out / "inspected.json")
    parts = split(good)
    save_parts(story.parts, parts)
    sizes = parts.sizes
    notes = (*inspection.remarks, *parts.train.notes, *parts.queries.notes)
    facts = {
        "source": str(story.images or "the handwritten digits of scikit-learn"),
        "num_images": inspection.num_images,
        "classes": list(good.classes),
        "bad": {defect: dict(found) for defect, found in inspection.bad.items()},
        "notes": {note: len(ids) for note, ids in inspection.notes.items()},
        "remarks": list(dict.fromkeys(notes)),
        "parts": sizes,
    }
    headline = (
        f"{inspection.num_images:,} pictures in {len(good.classes)} classes, {inspection.num_bad:,} bad: "
        f"{sizes['train']:,} to train on, {sizes['gallery']:,} for the gallery, {sizes['queries']:,} queries"
    )
    return Result(headline, facts)


def write_digits(folder: Path) -> None:
    """Write scikit-learn's handwritten digits, 8 x 8 pixels, as `folder/<digit>/<nnn>.png`, all or none."""
    if folder.exists():
        return
    from sklearn.datasets import load_digits

    pictures, labels = cast(tuple[np.ndarray, np.ndarray], load_digits(return_X_y=True))
    with replacing(folder) as temporary:
        for label in range(10):
            (temporary / str(label)).mkdir(parents=True)
            for number, pixels in enumerate(pictures[labels == label].reshape(-1, 8, 8)):
                grey = (pixels * 255 / 16).round().astype(np.uint8)
                Image.fromarray(grey).save(temporary / str(label) / f"{number:03}.png")


def learn(story: Story, earlier: Earlier, follower: Follower) -> Result:
    """Train a small MobileOne, branches and all."""
    return trained(story, mobileone_mini(), story.run, follower)


def trained(
    story: Story, recipe: Recipe, run: Path, follower: Follower, *, table: Table | None = None
) -> Result:
    """Train a network on the demo's training pictures, as long as the demo was asked to."""
    parts = load_parts(story.parts)
    recipe = stretched(recipe, story.steps, len(parts.train))
    left_out = grow(recipe, parts.train, parts.unseen, run, table=table, watchers=follower.watchers)
    last = read_events(run)[-1]
    starts = json.loads((run / "environment.json").read_bytes())
    facts = {
        "model": recipe.model,
        "size_px": recipe.size_px,
        "steps": recipe.schedule.steps,
        "batch_size": recipe.batch_size,
        "epochs": recipe.schedule.steps * recipe.batch_size / len(parts.train),
        "num_unseen": len(parts.unseen),
        "loss": last.loss,
        **last.evaluation,
        "left_out": {name: str(error) for name, error in left_out.files.items()},
        "environment": starts[-1],
        "num_starts": len(starts),
    }
    top1 = 100 * last.evaluation["top1"]
    return Result(f"{top1:.1f} % of {len(parts.unseen):,} unseen pictures named right", facts)


def stretched(recipe: Recipe, steps: int | None, num_train: int) -> Recipe:
    """A recipe made longer or shorter, for `num_train` pictures or more; `None` keeps its length."""
    old = recipe.schedule
    steps, every = steps or old.steps, old.checkpoint_every or old.steps
    schedule = replace(
        old,
        steps=steps,
        warmup_steps=old.warmup_steps * steps // old.steps,
        evaluate_every=max(1, (old.evaluate_every or old.steps) * steps // old.steps),
        # No rarer in a long run, where more would be lost.
        checkpoint_every=min(every, max(1, every * steps // old.steps)),
    )
    return replace(recipe, schedule=schedule, batch_size=min(recipe.batch_size, num_train))


def fold(story: Story, earlier: Earlier, follower: Follower) -> Result:
    """Fuse the branches, prove that nothing changed, count and draw what went."""
    branched, card = load_model(story.run / "model.safetensors")
    fused, parity = proven(story, branched, card)
    example = _example(card)
    graphs = {"before": operations(branched, example), "after": operations(fused, example)}
    with replacing(story.drawing) as temporary:
        temporary.write_text(draw(graphs["before"], graphs["after"]), encoding="utf-8")
    save_model(story.fused, fused, card)
    facts: dict[str, object] = {"parity": parity.to_json()}
    for name, model in {"before": branched, "after": fused}.items():
        cost, kinds = count(model, example), count_kinds(graphs[name])
        size = {"parameters": cost.parameters, "multiply_adds": cost.multiply_adds}
        facts[name] = size | {"operations": sum(kinds.values()), "kinds": kinds}
    sizes = [sum(count_kinds(kinds).values()) for kinds in graphs.values()]
    return Result(f"{sizes[0]} operations became {sizes[1]}; {parity}", facts)


def proven(story: Story, branched: Backbone, card: ModelCard) -> tuple[Backbone, Parity]:
    """Fuse a network and compare the two on unseen pictures.

    Raises:
        ParityError: They do not agree.
    """
    fused = cast(Backbone, fuse(branched))
    parity = compare(branched, fused, _proofs(story, card))
    if not parity.passed:
        raise ParityError(f"The fused model is not the trained one. {parity}")
    return fused, parity


def publish(story: Story, earlier: Earlier, follower: Follower) -> Result:
    """Export the fused model to every runtime that is installed, each proven."""
    model, card = load_model(story.fused)
    written: dict[str, object] = {}
    headlines: list[str] = []
    for target in _installed():
        artifact = export(
            model,
            story.artifact(TARGETS[target].suffix),
            example=_example(card),
            target=target,
            metadata=card.metadata(),
            inputs=_proofs(story, card),
        )
        assert artifact.parity is not None, "both runtimes run wherever they install"
        written[target] = {
            "name": RUNTIMES[target][1],
            "path": str(artifact.path),
            "size_bytes": artifact.size_bytes,
            "parity": artifact.parity.to_json(),
        }
        headlines.append(f"{RUNTIMES[target][1]} {artifact.parity.worst_relative:.1e}")
    missing = [name for target, (_, name) in RUNTIMES.items() if target not in written]
    return Result(f"worst difference: {', '.join(headlines)}", {"artifacts": written, "missing": missing})


def race(story: Story, earlier: Earlier, follower: Follower) -> Result:
    """Time the training form, the fused model and the exported ones, taking turns."""
    branched, card = load_model(story.run / "model.safetensors")
    fused, _ = load_model(story.fused)
    runners: dict[str, Function] = {"training form, PyTorch": branched, "fused, PyTorch": fused}
    for target in _installed():
        path = story.artifact(TARGETS[target].suffix)
        runners[f"fused, {RUNTIMES[target][1]}"] = TARGETS[target].load(path)
    timed = {size: _time(runners, _queries(story, card, size)) for size in BATCH_SIZES}
    best = min(timed[1], key=lambda name: timed[1][name]["wall_median_ms"])
    ours, theirs = (timed[1][name]["wall_median_ms"] for name in (best, "training form, PyTorch"))
    headline = f"{ours:.2f} ms a picture ({best}), the training form {theirs:.2f} ms"
    return Result(headline, {"repeats": REPEATS, "latencies": {str(size): timed[size] for size in timed}})


def _time(runners: Mapping[str, Function], batch: Tensor) -> dict[str, dict[str, float]]:
    with torch.inference_mode():
        latencies = measure(
            {name: lambda run=run: run(batch) for name, run in runners.items()},
            repeats=REPEATS,
            warmup=WARMUP,
        )
    return {name: asdict(latency) for name, latency in latencies.items()}


def fill(story: Story, earlier: Earlier, follower: Follower) -> Result:
    """Embed the gallery's pictures with the fused model."""
    from regraft.recipes import gallery

    as_filled(story)
    pictures = load_parts(story.parts).gallery
    added = gallery.add(story.gallery, paths(pictures), model=story.fused, watch=follower.advance)
    state = gallery.status(story.gallery)
    facts = {
        "num_rows": added.num_rows,
        "num_new": added.num_new,
        "num_present": added.num_present,
        "num_duplicates": added.num_duplicates,
        "duration_s": added.duration_s,
        "dimension": state.dimension,
        "space": state.space,
        "size_bytes": state.size_bytes,
    }
    rate = f", {added.num_new / added.duration_s:,.0f} a second" if added.num_new else ""
    return Result(f"{added.num_rows:,} pictures as vectors of {state.dimension}{rate}", facts)


def ask(story: Story, earlier: Earlier, follower: Follower) -> Result:
    """Search the gallery with pictures that nothing has seen, and judge the answers by their class."""
    as_filled(story)
    parts = load_parts(story.parts)
    answers = answers_now(story)
    total = measure_precision(answers, parts.gallery.labels)
    facts = {
        "total": asdict(total),
        "by_class": {
            name: asdict(measure_precision(chosen, parts.gallery.labels))
            for label, name in enumerate(parts.queries.classes)
            if (chosen := [answer for answer in answers if answer.label == label])
        },
        "right": [answer.query for answer in answers if answer.is_right],
        "num_mistakes": sum(not answer.is_right for answer in answers),
        "typical": [asdict(answer) for answer in typical(answers, NUM_TYPICAL)],
        "mistakes": [asdict(answer) for answer in surest_mistakes(answers, NUM_MISTAKES)],
    }
    headline = (
        f"best hit of the right class for {100 * total.at_1:.1f} % of {total.num_queries:,} queries "
        f"(first five: {100 * total.at_5:.1f} %, by chance {100 * total.chance:.1f} %)"
    )
    return Result(headline, facts)


def answers_now(story: Story) -> list[Labelled]:
    """What the gallery answers to every query, by whichever model it answers now."""
    from regraft.recipes.search import search

    parts = load_parts(story.parts)
    kept, queries = parts.gallery, parts.queries
    label_of = dict(zip(map(str, paths(kept)), kept.labels, strict=True))
    found = search(story.gallery, paths(queries), NUM_HITS)
    return [_labelled(answer, label, label_of) for answer, label in zip(found, queries.labels, strict=True)]


def as_filled(story: Story) -> None:
    """Let the gallery answer by its first model, also where an earlier run has begun to upgrade it."""
    from regraft.recipes import upgrade
    from regraft.recipes.place import place_of
    from regraft.recipes.upgrade_plan import has_begun

    place = place_of(story.gallery)
    if has_begun(place):
        upgrade.rollback(place)


def _labelled(answer: "Answer", label: int, label_of: Mapping[str, int]) -> Labelled:
    hits = tuple(str(hit.source) for hit in answer.hits)
    scores = tuple(hit.score for hit in answer.hits)
    return Labelled(str(answer.query), label, hits, tuple(label_of[hit] for hit in hits), scores)


STEPS = (
    Step("look", "looking at every picture", look),
    Step("grow", "training a small MobileOne", learn),
    Step("fuse", "fusing its branches, and proving it", fold),
    Step("export", "exporting, and proving it", publish),
    Step("latency", "timing what was made", race),
    Step("gallery", "filling a gallery", fill),
    Step("queries", "asking it about unseen pictures", ask),
)


def _installed() -> list[str]:
    return [target for target, (package, _) in RUNTIMES.items() if find_spec(package)]


def _example(card: ModelCard) -> Tensor:
    return torch.zeros(1, card.in_channels, card.preprocess.size_px, card.preprocess.size_px)


def _proofs(story: Story, card: ModelCard) -> list[Tensor]:
    return proof_inputs(card, paths(load_parts(story.parts).unseen))


def _queries(story: Story, card: ModelCard, batch_size: int) -> Tensor:
    """A batch of queries, which repeat where there are too few."""
    pictures = paths(load_parts(story.parts).queries)
    return _batch(card, [pictures[place % len(pictures)] for place in range(batch_size)])


def _batch(card: ModelCard, pictures: Sequence[Path]) -> Tensor:
    return torch.stack([card.preprocess(picture) for picture in pictures])
