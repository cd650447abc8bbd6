"""The last steps of `regraft demo`: a second network takes the first's place while the gallery answers."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.files import replacing
from regraft.recipes.demo_data import reinforced_recipe
from regraft.recipes.demo_judge import judge
from regraft.recipes.demo_steps import Earlier, answers_now, as_filled, proven, trained
from regraft.recipes.parts import Parts, load_parts, paths
from regraft.recipes.precision import measure_precision
from regraft.recipes.story import Follower, Result, Step, Story
from regraft.tables.table import open_table
from regraft.vision.modelfile import load_model, save_model

if TYPE_CHECKING:
    from regraft.recipes.labels import TableLabels

MOST_PAIRS = 4000
"""Training pictures that the transformation is learned from, at most."""
SHARES = (0.0, 0.25, 0.5, 0.75, 1.0)
"""Of the gallery's rows, how many are encoded anew when it is measured."""
NUM_CHANGED = 3
"""Answers that became right, and that became wrong, to be shown."""


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The gallery at one point of its upgrade."""

    share: float
    """Of its rows, those that the second model has encoded."""
    map: float
    """Mean average precision over the queries."""
    at_1: float
    """Share of queries whose nearest row is of their class."""
    answers: Mapping[str, int] = field(default_factory=dict[str, int])
    """Questions that were answered on the way to it, by space."""
    spaces: tuple[str, ...] = ()
    """The spaces that answered them, in their order."""
    slowest_s: float = 0.0
    """The longest time that one of them took."""


def learn_again(story: Story, earlier: Earlier, follower: Follower) -> Result:
    """Train the small FastViT on what the first networks said, fuse it and prove it."""
    table = open_table(earlier["reinforce"].facts["path"])
    result = trained(story, reinforced_recipe(story), story.second_run, follower, table=table)
    branched, card = load_model(story.second_run / "model.safetensors")
    fused, parity = proven(story, branched, card)
    save_model(story.second, fused, card)
    bought = 100 * (result.facts["top1"] - earlier["compare"].facts["top1"])
    return Result(
        f"{result.headline}, {bought:+.1f} points; {parity}", {**result.facts, "parity": parity.to_json()}
    )


def foresee(story: Story, earlier: Earlier, follower: Follower) -> Result:
    """Learn to compute the second model's vectors from the first one's, and say what that will bring."""
    from regraft.recipes.encoders import Encoders
    from regraft.recipes.pairing import FromPictures
    from regraft.recipes.place import place_of
    from regraft.recipes.upgrade_plan import plan

    as_filled(story)
    story.live.unlink(missing_ok=True)
    place, parts = place_of(story.gallery), load_parts(story.parts)
    train = parts.train
    seen = train.take(range(0, len(train), -(-len(train) // MOST_PAIRS)))
    first = Encoders(place).of(place.served(place.open()))
    made = plan(
        place,
        story.second,
        pairs=FromPictures(paths(seen), first),
        labels=_classes(parts),
        watch=lambda what, num_done, num_total: follower.advance(num_done, num_total) if num_total else None,
    )
    expected = made.forecast
    headline = (
        f"{made.chosen.replace('_', ' ')} from {made.num_pairs:,} pairs; expected {expected.name} "
        f"{100 * expected.before.mean:.1f} before, {100 * expected.points[0].mean:.1f} with nothing encoded "
        f"anew, {100 * expected.points[-1].mean:.1f} with everything"
    )
    return Result(headline, asdict(made))


def _classes(parts: Parts) -> "TableLabels":
    from regraft.recipes.labels import TableLabels

    train = parts.train
    return TableLabels(
        {str(path): train.classes[label] for path, label in zip(paths(train), train.labels, strict=True)}
    )


def replace_model(story: Story, earlier: Earlier, follower: Follower) -> Result:
    """Carry the plan out, a part at a time, while questions are asked; measure the gallery after each."""
    from regraft.recipes import upgrade
    from regraft.recipes.asking import asking
    from regraft.recipes.place import place_of
    from regraft.recipes.upgrade_plan import read_plan

    parts = load_parts(story.parts)
    planned = read_plan(place_of(story.gallery))
    moments = _read_moments(story.live) or [_moment(story, parts, 0.0)]
    _write_moments(story.live, moments)
    shares = [share for share in SHARES if share >= (planned.forecast.switch or 0.0)]
    for share in shares[len(moments) - 1 :]:
        with asking(story.gallery, paths(parts.queries)) as asked:
            state = upgrade.run(
                story.gallery,
                until=share,
                watch=lambda progress: follower.advance(progress.items_done, progress.items_total),
            )
        moment = _moment(story, parts, state.share)
        moments.append(
            replace(
                moment, answers=dict(asked.answers), spaces=tuple(asked.spaces), slowest_s=asked.slowest_s
            )
        )
        _write_moments(story.live, moments)
    return _told(story, parts, earlier, moments)


def _told(story: Story, parts: Parts, earlier: Earlier, moments: list[Moment]) -> Result:
    before, upgraded = moments[0], moments[1:]
    answers = answers_now(story)
    was_right = set(earlier["queries"].facts["right"])
    gained = [answer for answer in answers if answer.is_right and answer.query not in was_right]
    lost = [answer for answer in answers if not answer.is_right and answer.query in was_right]
    spaces = earlier["plan"].facts
    num_answers = {
        name: sum(moment.answers.get(spaces[name]["space"], 0) for moment in upgraded)
        for name in ("old", "new")
    }
    facts = {
        "before": asdict(before),
        "moments": [asdict(moment) for moment in upgraded],
        "num_answers": num_answers,
        "slowest_s": max(moment.slowest_s for moment in upgraded),
        "total": asdict(measure_precision(answers, parts.gallery.labels)),
        "num_gained": len(gained),
        "num_lost": len(lost),
        "gained": [asdict(answer) for answer in gained[:NUM_CHANGED]],
        "lost": [asdict(answer) for answer in lost[:NUM_CHANGED]],
    }
    headline = (
        f"mAP {100 * before.map:.1f} before, {100 * upgraded[0].map:.1f} at the switch, "
        f"{100 * upgraded[-1].map:.1f} in the end; {sum(num_answers.values()):,} questions answered meanwhile"
    )
    return Result(headline, facts)


def _moment(story: Story, parts: Parts, share: float) -> Moment:
    from regraft.recipes.quality import measure_quality

    kept, asked = parts.gallery, parts.queries
    found = measure_quality(
        story.gallery,
        dict(zip(paths(asked), asked.labels, strict=True)),
        dict(zip(map(str, paths(kept)), kept.labels, strict=True)),
    )
    return Moment(share=share, map=found.mean_average_precision, at_1=found.cmc(1))


def _read_moments(path: Path) -> list[Moment]:
    """What an interrupted run had measured; nothing if none had begun."""
    if not path.is_file():
        return []
    return [
        Moment(**fields | {"spaces": tuple(fields["spaces"])}) for fields in json.loads(path.read_bytes())
    ]


def _write_moments(path: Path, moments: list[Moment]) -> None:
    with replacing(path) as temporary:
        temporary.write_text(json.dumps([asdict(moment) for moment in moments], indent=2), encoding="utf-8")


STEPS = (
    Step("regrow", "training the FastViT on what the first networks say", learn_again),
    Step("judge", "asking both how sure they are, and about corrupted pictures", judge),
    Step("plan", "planning to put it in the first one's place", foresee),
    Step("upgrade", "upgrading the gallery while it answers", replace_model),
)
