"""What `regraft upgrade` prints."""

from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING

from regraft.cli.printing import duration, echo, echo_json, short, size

if TYPE_CHECKING:
    from collections.abc import Sequence

    from regraft.recipes.forecast import Point
    from regraft.recipes.upgrade_plan import RungFacts, UpgradePlan
    from regraft.recipes.upgrade_status import UpgradeStatus

NUM_GONE_SHOWN = 3


def echo_plan(found: "UpgradePlan", page: Path) -> None:
    """Print what a plan found, and where its page is."""
    forecast, cost = found.forecast, found.cost
    old, new = (f"{one.architecture or 'unknown model'} ({one.dimension})" for one in (found.old, found.new))
    echo(f"{cost.num_rows:,} rows: from {old} to {new}, learned from {found.num_pairs:,} pairs")
    echo(found.reason)
    echo(_side_line(found))
    for line in rung_lines(found.rungs):
        echo(f"  {line}")
    echo("")
    echo(
        f"cost: {size(cost.transform_bytes)} of new vectors, computed in {time_taken(cost.transform_s)}, and"
    )
    echo(
        "  no row can be encoded anew: no source could be read"
        if cost.encode_s is None
        else f"  {1000 * cost.encode_s:.1f} ms for every row that is encoded anew, reading included"
    )
    if cost.num_encoded:
        echo(f"  {cost.num_encoded:,} of {cost.num_rows:,} rows were encoded for the plan")
    echo("")
    echo(f"expected {forecast.name} (%), on {forecast.num_queries:,} held-out pairs:")
    echo(f"  {'before':>7}  {_quality(forecast.before)}")
    for point in _shown(found):
        seconds = cost.backfill_s(point.share)
        takes = "" if seconds is None else f"   {time_taken(seconds)} of encoding"
        echo(f"  {100 * point.share:6.0f}%  {_quality(point)}{takes}")
    echo("")
    for line in _advice(found):
        echo(line)
    if found.gone:
        echo(f"{len(found.gone):,} of the items looked at cannot be encoded again")
    echo(f"no row was touched; the plan with its curve: {page.as_uri()}")


def rung_lines(rungs: "Sequence[RungFacts]") -> Iterator[str]:
    """How good those are that apply; then the others, one line a reason."""
    reasons: dict[str, list[str]] = {}
    width = max(len(rung.name) for rung in rungs)
    for rung in rungs:
        if rung.why_not is not None:
            reasons.setdefault(rung.why_not, []).append(rung.name)
        elif rung.start is not None and rung.mean is not None:
            start, mean = 100 * rung.start, 100 * rung.mean
            yield f"{rung.name:<{width}} {start:5.1f} at the start, {mean:5.1f} on average"
    for reason, names in reasons.items():
        yield f"{', '.join(names)} {'do' if len(names) > 1 else 'does'} not apply: {reason}"


def time_taken(seconds: float) -> str:
    """A duration for people, which may be of milliseconds."""
    return f"{1000 * seconds:.1f} ms" if 0 < seconds < 0.1 else duration(seconds)


def _side_line(found: "UpgradePlan") -> str:
    if found.side is not None:
        return f"reads the side-information {short(found.side)}"
    if found.num_without_side:
        return (
            f"side-information is not used: {found.num_without_side:,} rows lack it, and "
            "`regraft gallery add GALLERY` completes those whose pictures are there"
        )
    return "no side-information is used"


def _advice(found: "UpgradePlan") -> Iterator[str]:
    forecast = found.forecast
    switch = forecast.switch
    if forecast.is_rough:
        yield f"WARNING: the forecast rests on {forecast.num_queries} held-out pairs, and so few say little;"
        yield "  plan with more pairs, such as by --pairs"
    if switch is None:
        yield "WARNING: nowhere on the way is the new gallery expected to be as good as the old one"
    elif switch > 0:
        yield f"WARNING: answers are expected to be worse than the old ones until {100 * switch:.0f} % of the"
        yield "  rows are encoded anew"
        yield "  so run encodes these first, while the old model answers, and switches then"
    yield f"recommended stop: {100 * forecast.stop:.0f} % of the rows encoded anew"


def _shown(found: "UpgradePlan") -> "list[Point]":
    from regraft.recipes.forecast import shown_points

    return shown_points(found.forecast.points)


def _quality(point: "Point") -> str:
    return f"{100 * point.mean:5.1f}  ({100 * point.low:.1f} to {100 * point.high:.1f})"


def tell(state: "UpgradeStatus", *, as_json: bool) -> None:
    """Print where an upgrade is."""
    if as_json:
        echo_json(asdict(state) | {"share": state.share})
        return
    answers = "new" if state.served == state.new_space else "old"
    paused = ", paused" if state.is_paused else ""
    echo(f"{'upgrade':<10} {state.phase.replace('_', ' ')}{paused}")
    echo(f"{'answers':<10} by the {answers} model ({short(state.served)})")
    echo(
        f"{'rows':<10} {state.num_rows:,}: {state.num_native:,} encoded by the new model "
        f"({100 * state.share:.1f} %), {state.num_transformed:,} computed, {state.num_lacking:,} without"
    )
    echo(f"{'expected':<10} {100 * state.expected:.1f} % {state.measure}, on the plan's held-out pairs")
    if state.worker:
        worker = state.worker
        echo(f"{'at work':<10} process {worker.process} on {worker.host} since {worker.since}")
    for stage in state.stages:
        left = f", {duration(stage.eta_s)} left" if state.worker and stage.eta_s else ""
        echo(
            f"{stage.name:<10} {stage.items_done:,} of {stage.items_total:,}; "
            f"{duration(stage.compute_s)} computing, {duration(stage.store_s)} reading and writing{left}"
        )
    if state.gone:
        echo(f"{'gone':<10} {_gone(len(state.gone))}")
    for name, reason in list(state.gone.items())[:NUM_GONE_SHOWN]:
        echo(f"{'':<10} {name}: {reason}")
    if len(state.gone) > NUM_GONE_SHOWN:
        echo(f"{'':<10} --json lists them all")
    if (coming := next_step(state)) is not None:
        echo(f"{'next':<10} {coming}")


def _gone(num: int) -> str:
    return "1 row keeps its computed vector" if num == 1 else f"{num:,} rows keep a computed vector"


def next_step(state: "UpgradeStatus") -> str | None:
    """What a person can do now; `None` if nothing is left to do."""
    if state.phase in ("planned", "transforming", "ready"):
        return "regraft upgrade run carries it out"
    if state.phase == "rolling_back":
        return "regraft upgrade rollback goes on"
    if state.phase == "finishing":
        return "regraft upgrade finish goes on"
    if state.phase != "backfilling":
        return None
    if state.num_lacking == 0 and state.num_transformed <= len(state.gone):
        again = "run tries the gone rows again; " if state.num_transformed else ""
        return f"finish forgets the old vectors; {again}rollback returns to the old model"
    if state.is_paused or state.share < state.stop:
        return "regraft upgrade run goes on; rollback returns to the old model"
    return "finish forgets the old vectors; run --until 1 encodes all rows; rollback returns to the old model"
