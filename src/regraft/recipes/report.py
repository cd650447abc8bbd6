"""The report of a demo: what every step found, as one file for a person."""

import os
import platform
from collections.abc import Mapping
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from markupsafe import Markup

from regraft.deploy.latency import Latency
from regraft.recipes.charts import latency_chart, training_chart
from regraft.recipes.demo_judge import Judged
from regraft.recipes.evaluation_charts import corruption_chart, reliability_chart
from regraft.recipes.forecast import shown_points
from regraft.recipes.pages import Thumbnail, thumbnail, write_page
from regraft.recipes.range_chart import evaluations_of, range_chart
from regraft.recipes.story import Facts, Record, Story
from regraft.recipes.upgrade_chart import Measured, curve_chart
from regraft.recipes.upgrade_plan import UpgradePlan
from regraft.train.journal import read_events

PACKAGES = ("regraft", "torch", "onnxruntime", "openvino", "lancedb", "numpy", "pillow")


def write_report(path: Path, story: Story, records: Mapping[str, Record]) -> None:
    """Write one HTML file that needs nothing beside it, all or nothing.

    Args:
        records: Of every step before, by name.
    """
    classes: list[str] = records["look"].facts["classes"]
    queries, upgrade = records["queries"].facts, records["upgrade"].facts
    plan = UpgradePlan.from_json(records["plan"].facts)
    context = {
        "steps": records,
        "facts": {name: record.facts for name, record in records.items()},
        "duration_s": sum(record.duration_s for record in records.values()),
        "day": datetime.fromisoformat(records["upgrade"].finished).date().isoformat(),
        "machines": sorted({(record.device, record.num_threads) for record in records.values()}),
        "training_chart": Markup(training_chart(read_events(story.run))),
        "graph": Markup(story.drawing.read_text(encoding="utf-8")),
        "proofs": _proofs(records),
        "latencies": (latencies := _latencies(records["latency"].facts)),
        "latency_chart": Markup(latency_chart(latencies)),
        "typical": [_answer(answer, classes) for answer in queries["typical"]],
        "mistakes": [_answer(answer, classes) for answer in queries["mistakes"]],
        "bought": _bought(records),
        "range_chart": Markup(range_chart(evaluations_of(story.varied_run))),
        "second_chart": Markup(training_chart(read_events(story.second_run), name="second")),
        **_judged(records["judge"].facts),
        "plan": plan,
        "points": shown_points(plan.forecast.points),
        "upgrade_chart": Markup(_upgrade_chart(plan, upgrade)),
        "gained": [_answer(answer, classes) for answer in upgrade["gained"]],
        "lost": [_answer(answer, classes) for answer in upgrade["lost"]],
        "gallery": story.gallery,
        "environment": _environment(records["grow"].facts["environment"]),
    }
    write_page(path, "report.html.j2", context)


def _proofs(records: Mapping[str, Record]) -> list[Mapping[str, object]]:
    """One row for each pair of models that was compared."""
    fused = {"what": "fused", "against": "training form", "record": records["fuse"], "size_bytes": None}
    exported = [
        {
            "what": artifact["name"],
            "against": "fused",
            "record": records["export"],
            "size_bytes": artifact["size_bytes"],
            "parity": artifact["parity"],
        }
        for artifact in records["export"].facts["artifacts"].values()
    ]
    return [fused | {"parity": records["fuse"].facts["parity"]}, *exported]


def _bought(records: Mapping[str, Record]) -> list[Mapping[str, object]]:
    """One row for each way of training: how right it is, and how much more than the one it builds on."""
    steps = (
        ("grow", None, "small MobileOne", "labels"),
        ("vary", "grow", "small MobileOne", "labels, with learned ranges"),
        ("reinforce", "grow", "both together", "(the teacher; its time is that of asking it)"),
        ("compare", None, "small FastViT", "labels"),
        (
            "regrow",
            "compare",
            "small FastViT",
            "labels, and as much the teacher's answers, about views with learned ranges",
        ),
    )
    top1 = {name: float(records[name].facts["top1"]) for name, *_ in steps}
    return [
        {
            "network": network,
            "data": data,
            "top1": top1[name],
            "points": None if before is None else 100 * (top1[name] - top1[before]),
            "duration_s": records[name].duration_s,
        }
        for name, before, network, data in steps
    ]


def _judged(facts: Facts) -> dict[str, object]:
    """How sure and how robust both networks are, and charts of the second."""
    first, second = (Judged.from_json(facts[name]) for name in ("first", "second"))
    return {
        "judged": {"first": first, "second": second},
        "reliability_chart": Markup(reliability_chart(second.reliability)),
        "corruption_chart": second.corruption and Markup(corruption_chart(second.corruption)),
    }


def _latencies(facts: Facts) -> dict[int, dict[str, Latency]]:
    return {
        int(size): {name: Latency(**latency) for name, latency in candidates.items()}
        for size, candidates in facts["latencies"].items()
    }


def _upgrade_chart(plan: UpgradePlan, upgrade: Facts) -> str:
    """What was expected of the upgrade, and what the queries found."""
    measured = [Measured(moment["share"], moment["map"]) for moment in upgrade["moments"]]
    return curve_chart(plan.forecast, measured, old=upgrade["before"]["map"])


def _answer(answer: Facts, classes: list[str]) -> dict[str, object]:
    hits = [
        _picture(path, classes[label]) | {"score": score, "is_right": label == answer["label"]}
        for path, label, score in zip(answer["hits"], answer["hit_labels"], answer["scores"], strict=True)
    ]
    return {"query": _picture(answer["query"], classes[answer["label"]]), "hits": hits}


def _picture(path: str, name: str) -> dict[str, Thumbnail | str]:
    return {"thumbnail": thumbnail(path), "path": path, "name": name}


def _environment(training: Facts) -> dict[str, str]:
    """What the numbers hang on, by name."""
    versions = {name: _version(name) for name in PACKAGES}
    return {
        "training device": training["device"],
        "processor cores": str(os.cpu_count()),
        "system": platform.platform(),
        "python": platform.python_version(),
        **{name: number for name, number in versions.items() if number},
        "commit": training["commit"] or "installed from a package",
    }


def _version(package: str) -> str | None:
    try:
        return version(package)
    except PackageNotFoundError:  # An extra that is not installed.
        return None
