"""What upgrading a gallery is worth on CIFAR-10: transformations, side-information, orders of backfilling.

    python benchmarks/upgrade_backbones.py CIFAR10 CACHE --seed 0    # and 1, 2
    python benchmarks/upgrade_fits.py CACHE --seed 0                 # and 1, 2
    python benchmarks/upgrade.py CACHE --seeds 0 1 2 --record --plot docs/upgrade_curves.svg

Two settings. A: the old model knows 5 of the 10 classes, the new one all. B: the old model saw 10,000
pictures, the new one 50,000. The gallery is the 10,000 test pictures. They are the queries too, each leaving
itself out; curves are measured for every tenth of them. `cosine` compares unit vectors, as Regraft's
galleries do; `l2` compares vectors as the networks made them, which the bars were first measured in.

One JSON line a seed, setting, metric and method goes to results/upgrade.jsonl, then one for each bar.
"""

import argparse
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float, Float32, Int

from record import append, environment
from regraft.files import replacing
from regraft.retrieval.bootstrap import paired_bootstrap
from regraft.retrieval.curve import Curve, backfilling_curve
from regraft.retrieval.distances import COSINE, EUCLIDEAN
from regraft.retrieval.metrics import Evaluation, evaluate, gap_closed, negative_flips
from regraft.retrieval.nearest import exposure_ratio
from regraft.retrieval.order import ranking
from regraft.retrieval.relevance import Relevance
from upgrade_bars import Line, Lines, verdicts
from upgrade_fits import METRICS, SETTINGS, Job, World, jobs, published, world
from upgrade_orders import own_uncertainties, predicted_benefit, true_benefit, true_distance
from upgrade_plot import draw

RESULTS = Path(__file__).parent / "results" / "upgrade.jsonl"
DISTANCES = {"cosine": COSINE, "l2": EUCLIDEAN}
EVERY = 10
KS = (1, 5)
IN_DEPTH = {"fct", "fastfill", "label_free", "by_class", "head_free"}
"""Methods of which every order is measured, without side-information."""


class Judge:
    """One setting, seed and metric, and its old and new galleries.

    Args:
        upgrade: The world of the fits.
        metric: How vectors are compared.
    """

    def __init__(self, upgrade: World, metric: str) -> None:
        self.upgrade = upgrade
        self.name = metric
        self.metric = DISTANCES[metric]
        gallery = upgrade.gallery
        assert gallery.labels is not None
        self.every = np.arange(0, len(gallery), EVERY)
        self.relevance = _relevance(gallery.ids, gallery.labels, np.arange(len(gallery)))
        self.sampled = _relevance(gallery.ids, gallery.labels, self.every)
        self.before = self.evaluate(gallery.old, gallery.old)
        self.after = self.evaluate(gallery.new, gallery.new)

    def evaluate(
        self, queries: Float32[np.ndarray, "n d"], vectors: Float32[np.ndarray, "n d"]
    ) -> Evaluation:
        return evaluate(queries, vectors, self.relevance, metric=self.metric, ks=KS)

    def curve(self, vectors: Float32[np.ndarray, "n d"], scores: Float[np.ndarray, " n"]) -> Curve:
        new = self.upgrade.gallery.new
        order = ranking(scores)
        return backfilling_curve(
            new[self.every], vectors, new, order, self.sampled, metric=self.metric, ks=KS
        )

    def exposure(self, vectors: Float32[np.ndarray, "n d"], scores: Float[np.ndarray, " n"]) -> float:
        """Native items among the first ten at 30 % backfilled, over their share."""
        new = self.upgrade.gallery.new
        return exposure_ratio(
            new[self.every], vectors, new, ranking(scores), 10, self.every,
            num_native=3 * len(new) // 10, metric=self.metric,
        )  # fmt: skip


def _relevance(ids: list[str], labels: Int[np.ndarray, " n"], rows: Int[np.ndarray, " q"]) -> Relevance:
    return Relevance.by_labels([ids[row] for row in rows], ids, labels[rows], labels)


def measure(judge: Judge, job: Job, cache: Path, seed: int) -> tuple[Line, dict[str, Curve]]:
    """Everything about one transformation."""
    with np.load(job.path(cache, seed)) as file:
        fit = dict(file)
    vectors = fit["gallery_vectors"]
    found = judge.evaluate(judge.upgrade.gallery.new, vectors)
    curves = {name: judge.curve(vectors, scores) for name, scores in _orders(judge, job, fit, seed).items()}
    before, after = judge.before.mean_average_precision, judge.after.mean_average_precision
    value = found.mean_average_precision
    line: dict[str, object] = {
        "method": job.name,
        "map": value,
        "cmc@1": found.cmc(1),
        "cmc@5": found.cmc(5),
        "gap": after - before,
        "gap_closed": gap_closed(value, before, after),
        "negative_flips": negative_flips(judge.before, found),
        "auc": {name: curve.auc for name, curve in curves.items()},
        "auc_cmc@1": {name: float(curve.cmc(1).mean()) for name, curve in curves.items()},
        "curves": {name: curve.mean_average_precision.tolist() for name, curve in curves.items()},
        "fit_cpu_s": float(fit["seconds"]),
    }
    own = "sigma" if "sigma" in curves else "estimate"
    line["own_order"] = own
    line["exposure@10"] = judge.exposure(vectors, fit.get("gallery_sigma", fit["gallery_estimate"]))
    interval = paired_bootstrap(curves[own].average_precision_auc, curves["random"].average_precision_auc)
    line["own_order_over_random"] = interval.to_json()
    return line, curves


def _orders(judge: Judge, job: Job, fit: dict[str, np.ndarray], seed: int) -> dict[str, np.ndarray]:
    vectors, gallery, held_out = fit["gallery_vectors"], judge.upgrade.gallery, judge.upgrade.held_out
    orders = {"random": np.random.default_rng(seed).random(len(gallery)), "estimate": fit["gallery_estimate"]}
    if "gallery_sigma" in fit:
        orders["sigma"] = fit["gallery_sigma"]
    if job.side or job.num_pairs or job.method not in IN_DEPTH:
        return orders
    assert gallery.labels is not None
    assert held_out.labels is not None
    head = judge.upgrade.head
    orders |= own_uncertainties(head, vectors)
    orders["oracle distance"] = true_distance(vectors, gallery.new, judge.name)
    orders["oracle benefit"] = true_benefit(head, vectors, gallery.new, gallery.labels)
    if "gallery_sigma" in fit:
        orders["benefit"] = predicted_benefit(
            head, vectors, fit["gallery_sigma"], fit["held_out_vectors"], fit["held_out_sigma"],
            held_out.new, held_out.labels,
        )  # fmt: skip
    return orders


def plain_rows(judge: Judge) -> Iterator[dict[str, object]]:
    """What needs no transformation."""
    gallery = judge.upgrade.gallery
    for name, found in (
        ("no update", judge.before),
        ("full re-embedding", judge.after),
        ("new query on old vectors", judge.evaluate(gallery.new, gallery.old)),
    ):
        flips = negative_flips(judge.before, found)
        yield {
            "method": name,
            "map": found.mean_average_precision,
            "cmc@1": found.cmc(1),
            "cmc@5": found.cmc(5),
            "negative_flips": flips,
        }


def one_world(cache: Path, setting: str, metric: str, seed: int) -> Iterator[Line]:
    """Every line of one setting, seed and metric whose fits are there."""
    judge = Judge(world(cache, setting, seed, metric, None), metric)
    facts = {"case": "upgrade", "setting": setting, "metric": metric, "seed": seed}
    yield from (facts | row for row in plain_rows(judge))
    compared: dict[str, dict[str, Curve]] = {}
    for job in [*jobs(), *published()]:
        if (job.setting, job.metric) == (setting, metric) and job.path(cache, seed).exists():
            line, curves = measure(judge, job, cache, seed)
            compared[job.name] = curves
            yield facts | line
    if {"fct", "fastfill"} <= set(compared):
        gain = paired_bootstrap(
            compared["fastfill"]["sigma"].average_precision_auc,
            compared["fct"]["random"].average_precision_auc,
        )
        yield facts | {"method": "fastfill by sigma over fct at random", "gain": gain.to_json()}


def measured(cache: Path, setting: str, metric: str, seed: int) -> list[Line]:
    """`one_world`, kept in CACHE/measured once every fit is there: seeds can be measured side by side."""
    path = cache / "measured" / f"{metric}-{setting}-{seed}.json"
    if path.exists():
        return json.loads(path.read_bytes())
    lines = []
    for line in one_world(cache, setting, metric, seed):
        lines.append(line)
        print(summary(line), flush=True)
    wanted = [job for job in jobs() if (job.setting, job.metric) == (setting, metric)]
    if all(job.path(cache, seed).exists() for job in wanted):
        path.parent.mkdir(exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps(lines))
    return lines


def percent(line: Line, name: str) -> str:
    value = line[name]
    assert isinstance(value, float), name
    return f"{100 * value:.1f}"


def summary(line: Line) -> str:
    areas = line.get("auc")
    shown = (
        ", ".join(f"{key} {100 * value:.1f}" for key, value in areas.items())
        if isinstance(areas, dict)
        else ""
    )
    closed = f" closed {percent(line, 'gap_closed')}" if "gap_closed" in line else ""
    quality = (
        f" mAP {percent(line, 'map')} top1 {percent(line, 'cmc@1')}" if "map" in line else str(line["gain"])
    )
    return (
        f"{line['setting']} {line['metric']} {line['seed']} {line['method']}:{quality}{closed}; AUC {shown}"
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--settings", nargs="+", choices=SETTINGS, default=list(SETTINGS))
    parser.add_argument("--metrics", nargs="+", choices=METRICS, default=list(METRICS))
    parser.add_argument("--record", action="store_true", help="append to results, and judge the bars")
    parser.add_argument("--plot", type=Path, help="where to draw the curves, .svg or .png")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    worlds = itertools.product(arguments.settings, arguments.metrics, arguments.seeds)
    lines = [line for world in worlds for line in measured(arguments.cache, *world)]
    if not arguments.record:
        return
    facts = environment("torch", "numpy")
    append(RESULTS, [{**line, **facts} for line in lines])
    for metric in arguments.metrics:
        for verdict in verdicts(Lines(lines), metric):
            append(RESULTS, [{"case": "upgrade bar", **verdict, "seeds": arguments.seeds, **facts}])
            print(f"{verdict['verdict']:16s} {metric:7s} {verdict['value']:.3f} {verdict['bar']}")
    if arguments.plot:
        draw(lines, arguments.plot)


if __name__ == "__main__":
    main()
