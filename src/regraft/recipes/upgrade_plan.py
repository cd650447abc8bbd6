"""Planning the upgrade of a gallery: learn a transformation, say what it will bring, touch no row.

upgrade/
  plan.json                    what was found, and what is recommended
  plan.html                    the same for a person
  transformation.safetensors   from old vectors to new ones
  new.safetensors              the new model
  known.npz                    gallery rows that the transformation was learned from, and their new vectors
  ledger.sqlite                what `run` has done; made by its first call
"""

import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from filelock import FileLock

from regraft.deploy.latency import device_name
from regraft.errors import RunError, StoreError
from regraft.files import replacing
from regraft.recipes.encoders import load_encoder
from regraft.recipes.forecast import Cost, Forecast, Pace, forecast, measure_pace, transform_seconds
from regraft.recipes.known import KNOWN, Known, write_known
from regraft.recipes.labels import Labels
from regraft.recipes.pairing import Change, FromGallery, Gathered, PairSource, Watch, chosen_ids
from regraft.recipes.place import LEDGER, PLAN, Place, place_of
from regraft.recipes.upgrade_page import write_plan_page
from regraft.retrieval.fitting import Candidate, Ladder, choose, fit_ladder
from regraft.retrieval.head import Head
from regraft.retrieval.ledger import Ledger
from regraft.retrieval.ledger_entries import ENDED
from regraft.retrieval.store.protocol import Layout, VectorStore
from regraft.retrieval.transform import Transformation
from regraft.retrieval.transformfile import TransformationCard, save_transformation
from regraft.vision.modelfile import ModelCard, load_model, read_card

NUM_PROBED = 64
"""Items that the new model's speed is measured on."""


@dataclass(frozen=True)
class ModelFacts:
    """One of the two models."""

    space: str
    dimension: int
    architecture: str | None


@dataclass(frozen=True)
class RungFacts:
    """One transformation that was tried."""

    name: str
    start: float | None
    """Quality before anything is backfilled."""
    mean: float | None
    """Mean quality over the upgrade."""
    seconds: float
    why_not: str | None
    """Why it does not apply; `None` if it does."""


@dataclass(frozen=True, kw_only=True)
class UpgradePlan:
    """What an upgrade replaces, how, at what cost and with what result to expect."""

    old: ModelFacts
    new: ModelFacts
    side: str | None
    """The space of the side-information that the transformation reads; `None` if it reads none."""
    num_without_side: int = 0
    """Rows that lack the gallery's side-information, which for their sake is not used."""
    num_pairs: int
    num_unlabelled: int
    """Pairs left out because nobody knows their class."""
    gone: Mapping[str, str]
    """Items that could not be encoded, and why."""
    rungs: tuple[RungFacts, ...]
    chosen: str
    reason: str
    """Why this one."""
    forecast: Forecast
    cost: Cost
    planned: str
    """When, UTC, ISO 8601."""
    device: str
    gallery: str | None = None
    """The gallery it is for, where that is not in the same folder; `None` where it is."""

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> "UpgradePlan":
        """The plan that `dataclasses.asdict` wrote."""
        read: dict[str, Any] = {
            "old": ModelFacts(**fields["old"]),
            "new": ModelFacts(**fields["new"]),
            "rungs": tuple(RungFacts(**rung) for rung in fields["rungs"]),
            "forecast": Forecast.from_json(fields["forecast"]),
            "cost": Cost(**fields["cost"]),
        }
        return cls(**dict(fields) | read)


def plan(
    gallery: Place | Path | str,
    model: Path,
    *,
    pairs: PairSource | None = None,
    labels: Labels | None = None,
    use_side: bool = True,
    seed: int = 0,
    watch: Watch = lambda what, num_done, num_total: None,
) -> UpgradePlan:
    """Learn how to upgrade a gallery to a new model, and say what that will bring. No row is written.

    Replaces a plan that was not begun.

    Args:
        gallery: The gallery's folder, or a place.
        model: The new model's file.
        pairs: Where to learn from; `None` encodes random items of the gallery.
        labels: Classes of the items, which the quality is judged by; without, it is judged by how well the
            new model is imitated.
        use_side: Whether to use the gallery's side-information, if it has some for every row.
        seed: Of everything random.
        watch: Told of progress.

    Raises:
        RunError: An upgrade is under way, or the gallery answers by this very model.
        SampleError: There are too few pairs, or they do not fit.
        StoreError: There is no gallery, or nothing in it.
        WeightsError: The model cannot be used.
    """
    place = place_of(gallery)
    store = place.open()
    old, new, card = place.served(store), load_encoder(model), read_card(model)
    _check_begins(place, store, new.layout)
    if store.count() == 0:
        raise StoreError(f"{place.name} holds no rows; expected some to upgrade.")
    side = complete_side(store) if use_side else None
    change = Change(store, old, new, side, card.labels)
    gathered = (pairs or FromGallery(seed=seed))(change, labels, watch)
    pace = measure_pace(new, store.get(chosen_ids(store, NUM_PROBED, seed)))
    ladder = fit_ladder(
        gathered.pairs,
        head=_head(model, card, pace.length),
        seed=seed,
        began=lambda name: _tell(watch, f"fitting {name}"),
    )
    chosen, reason = choose(ladder.candidates)
    made = _plan(place, change, gathered, ladder, chosen, reason, pace)
    _write(place, made, model, gathered, chosen)
    return made


def read_plan(place: Place) -> UpgradePlan:
    """The plan of a gallery's upgrade.

    Raises:
        RunError: There is none, it cannot be read, or it is for another gallery.
    """
    path = place.upgrade / PLAN
    if not path.is_file():
        raise RunError(
            f"No upgrade of {place.name} is planned.",
            hint="regraft upgrade plan GALLERY --model NEW makes one.",
        )
    try:
        made = UpgradePlan.from_json(json.loads(path.read_bytes()))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise RunError(
            f"{path} cannot be read as a plan: {error!r}.",
            hint="Plan again; or a newer Regraft has written it.",
        ) from error
    if made.gallery != place.elsewhere:
        raise RunError(
            f"The upgrade in {place.folder} is that of {made.gallery}, not of {place.name}.",
            hint="Give each gallery a workspace of its own.",
        )
    return made


def complete_side(store: VectorStore) -> Layout | None:
    """The gallery's side-information, if every row has it; of several, the longest."""
    whole = [layout for layout, num_lacking in _side_spaces(store).items() if num_lacking == 0]
    return max(whole, key=lambda layout: layout.dimension, default=None)


def _side_spaces(store: VectorStore) -> dict[Layout, int]:
    """Every kind of side-information that a gallery keeps, and how many rows lack it."""
    return {layout: store.count(lacking=layout.space) for layout in store.spaces if layout.packed}


def ledger_path(place: Place) -> Path:
    """The ledger of the upgrade that was planned last."""
    return place.upgrade / LEDGER


def has_begun(place: Place) -> bool:
    """Whether the upgrade that was planned last was begun."""
    return Ledger.exists(ledger_path(place))


def beginning(place: Place) -> FileLock:
    """Held while a plan is put in its place, and while one is begun: neither can happen during the other."""
    return FileLock(place.folder / "upgrade.lock")


def transformation_path(place: Place) -> Path:
    """What computes new vectors from old ones."""
    return place.upgrade / "transformation.safetensors"


def model_path(place: Place) -> Path:
    """The new model's file."""
    return place.upgrade / "new.safetensors"


def _check_begins(place: Place, store: VectorStore, new: Layout) -> None:
    _check_ended(place)
    if store.layout is not None and new.space == store.layout.space:
        raise RunError(
            f"{place.name} answers by this very model already; expected another one.",
            hint="Fused and unfused forms of a model are two spaces: give the form that it is to be.",
        )
    if new.space in {layout.space for layout in store.spaces}:
        raise RunError(
            f"{place.name} keeps vectors of this model beside those it answers with; expected another model.",
            hint="They are side-information, or of an upgrade whose folder is gone.",
        )


def _check_ended(place: Place) -> None:
    if not has_begun(place):
        return
    with Ledger(ledger_path(place)) as ledger:
        phase = ledger.phase
    if phase not in ENDED:
        raise RunError(
            f"Another upgrade of {place.name} is under way: it is {phase.replace('_', ' ')}.",
            hint="regraft upgrade finish or rollback ends it.",
        )


def _tell(watch: Watch, what: str) -> None:
    watch(what, 0, 0)


def _head(model: Path, card: ModelCard, length: float | None) -> Head | None:
    """The classifier of the new model, if it has one and the length of what it reads is known."""
    if not card.num_classes or length is None:
        return None
    network, _ = load_model(model)
    return Head(network.head.weight, network.head.bias, length=length)  # pyright: ignore[reportArgumentType]


def _plan(
    place: Place,
    change: Change,
    gathered: Gathered,
    ladder: Ladder,
    chosen: Candidate,
    reason: str,
    pace: Pace,
) -> UpgradePlan:
    transformation, pairs = chosen.transformation, gathered.pairs
    assert transformation is not None, "a transformation that applies was chosen"
    reads_side = bool(transformation.side_dimension)
    num_rows = change.store.count()
    old_file = place.encoder(change.old.space)
    old_card = read_card(old_file) if old_file.is_file() else None
    cost = Cost(
        num_rows=num_rows,
        transform_bytes=num_rows * change.new.layout.dimension * 4,
        transform_s=transform_seconds(
            transformation, pairs.old, pairs.side if reads_side else None, num_rows
        ),
        encode_s=pace.encode_s,
        num_encoded=0 if gathered.rows is None else len(gathered.rows),
    )
    return UpgradePlan(
        old=ModelFacts(change.old.space, change.old.dimension, old_card and old_card.architecture),
        new=ModelFacts(
            change.new.space, change.new.layout.dimension, read_card(change.new.file).architecture
        ),
        side=change.side.space if change.side and reads_side else None,
        num_without_side=0 if change.side else min(_side_spaces(change.store).values(), default=0),
        num_pairs=len(pairs),
        num_unlabelled=gathered.num_unlabelled,
        gone=gathered.gone,
        rungs=tuple(
            RungFacts(one.name, one.quality.get("start"), one.quality.get("mean"), one.seconds, one.why_not)
            for one in ladder.candidates
        ),
        chosen=chosen.name,
        reason=reason,
        forecast=forecast(ladder, chosen),
        cost=cost,
        planned=datetime.now(UTC).isoformat(timespec="seconds"),
        device=device_name(),
        gallery=place.elsewhere,
    )


def _write(place: Place, made: UpgradePlan, model: Path, gathered: Gathered, chosen: Candidate) -> None:
    """Put the plan into its folder, all or nothing, in place of one that was not begun or has ended.

    Raises:
        RunError: An upgrade has begun since the planning did. It goes on undisturbed.
    """
    assert chosen.transformation is not None
    with beginning(place):
        _set_aside(place)
        _put(place, made, model, gathered, chosen.transformation)


def _put(
    place: Place, made: UpgradePlan, model: Path, gathered: Gathered, transformation: Transformation
) -> None:
    card = TransformationCard(
        old=made.old.space,
        new=made.new.space,
        side=made.side,
        facts={"method": made.chosen, "num_pairs": made.num_pairs},
    )
    with replacing(place.upgrade) as folder:
        folder.mkdir()
        save_transformation(folder / transformation_path(place).name, transformation, card)
        shutil.copyfile(model, folder / model_path(place).name)
        if gathered.rows is not None:
            write_known(folder / KNOWN, Known(gathered.rows, gathered.pairs.new))
        write_plan_page(folder / "plan.html", made, place.name)
        (folder / PLAN).write_text(json.dumps(asdict(made), indent=2) + "\n", encoding="utf-8")


def _set_aside(place: Place) -> None:
    """Make room for a new plan: one that has ended is kept as history, one that was not begun is not."""
    _check_ended(place)
    if not place.upgrade.exists():
        return
    if not has_begun(place):
        shutil.rmtree(place.upgrade)
        return
    past = place.folder / "past_upgrades"
    past.mkdir(exist_ok=True)
    number = 1 + sum(1 for _ in past.iterdir())
    place.upgrade.rename(past / f"{number:03}")
