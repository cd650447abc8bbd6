"""How well a gallery of pictures tells classes apart, as it is now."""

from collections.abc import Mapping
from pathlib import Path

import numpy as np

from regraft.recipes.encoders import Encoders
from regraft.recipes.intake import read_picture
from regraft.recipes.place import place_of
from regraft.retrieval.metrics import Evaluation, evaluate
from regraft.retrieval.relevance import Relevance

KS = (1, 5)
PICTURES_AT_ONCE = 64


def measure_quality(gallery: Path, queries: Mapping[Path, int], label_of: Mapping[str, int]) -> Evaluation:
    """Rank the whole gallery for every query by the model that answers now, exactly.

    Args:
        gallery: The gallery's folder.
        queries: Picture files, none of them in the gallery, with their classes.
        label_of: The class of every row, by its source.

    Raises:
        BadImage: A query cannot be read.
        StoreError: There is no gallery, or it is damaged.
    """
    place = place_of(gallery)
    store = place.open()
    served = place.served(store)
    encoder = Encoders(place).of(served)
    files = list(queries)
    asked = [
        encoder(
            [read_picture(file, [encoder.preprocess]) for file in files[start : start + PICTURES_AT_ONCE]]
        )
        for start in range(0, len(files), PICTURES_AT_ONCE)
    ]
    batches = list(store.scan(space=served.space))
    sources = [str(source) for rows in batches for source in rows.sources]
    relevance = Relevance.by_labels(
        [str(file) for file in files],
        sources,
        np.array([queries[file] for file in files]),
        np.array([label_of[source] for source in sources]),
    )
    vectors = np.concatenate([rows.vectors for rows in batches])
    return evaluate(np.concatenate(asked), vectors, relevance, ks=KS)
