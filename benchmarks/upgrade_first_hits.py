"""Why encoding the most uncertain items first raises the precision of whole rankings and lowers CMC@1.

    python benchmarks/upgrade_first_hits.py CACHE --seeds 0 1 2

Expected beforehand: with 1,000 right answers a query, the first hit needs one good native row only. Random
rows hold good ones from the start; the most uncertain are the hard ones. For FastFill by cosine, at 30 %
backfilled: how often the nearest row is native, and how often it is right. One JSON line an order goes to
results/upgrade_first_hits.jsonl.
"""

import argparse
import json
from pathlib import Path

import numpy as np

from record import append, environment
from regraft.retrieval.order import ranking
from upgrade_fits import SETTINGS, Job, world
from upgrade_orders import unit

RESULTS = Path(__file__).parent / "results" / "upgrade_first_hits.jsonl"
SHARE = 0.3
EVERY = 10


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    arguments = parser.parse_args()
    facts = environment("torch", "numpy")
    for setting in SETTINGS:
        for order in ("random", "sigma", "least uncertain"):
            found = [first_hits(arguments.cache, setting, seed, order) for seed in arguments.seeds]
            means = {name: float(np.mean([each[name] for each in found])) for name in found[0]}
            line = {"case": "first hits", "setting": setting, "order": order, "share": SHARE, **means}
            append(RESULTS, [line | {"seeds": arguments.seeds} | facts])
            print(json.dumps(line))


def first_hits(cache: Path, setting: str, seed: int, order: str) -> dict[str, float]:
    gallery = world(cache, setting, seed, "cosine", None).gallery
    assert gallery.labels is not None
    with np.load(Job("cosine", setting, "fastfill").path(cache, seed)) as fit:
        transformed, sigma = fit["gallery_vectors"], fit["gallery_sigma"]
    random = np.random.default_rng(seed).random(len(sigma))
    scores = {"random": random, "sigma": sigma, "least uncertain": -sigma}[order]
    is_native = np.zeros(len(sigma), bool)
    is_native[ranking(scores)[: round(SHARE * len(sigma))]] = True
    rows = np.arange(0, len(sigma), EVERY)
    cosines = unit(gallery.new)[rows] @ np.where(is_native[:, None], unit(gallery.new), unit(transformed)).T
    cosines[np.arange(len(rows)), rows] = -np.inf
    nearest = cosines.argmax(axis=1)
    is_right, native = gallery.labels[nearest] == gallery.labels[rows], is_native[nearest]
    return {
        "cmc@1": is_right.mean(),
        "nearest_is_native": native.mean(),
        "right_if_native": is_right[native].mean(),
        "right_if_transformed": is_right[~native].mean(),
    }


if __name__ == "__main__":
    main()
