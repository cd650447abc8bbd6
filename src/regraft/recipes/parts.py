"""Which picture is for what: training, a gallery, or a query."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from regraft.errors import SampleError
from regraft.files import replacing
from regraft.vision.data import ImageSet, with_content_ids

UNSEEN, QUERIES = 0.2, 0.25
"""Share of the pictures that training never sees, and share of those that are queries."""
SEED = 0


@dataclass(frozen=True)
class Parts:
    """Three disjoint sets of picture files, with the same classes."""

    train: ImageSet
    gallery: ImageSet
    queries: ImageSet

    @property
    def unseen(self) -> ImageSet:
        """What training never sees: gallery and queries."""
        kept, asked = self.gallery, self.queries
        return replace(
            kept,
            ids=kept.ids + asked.ids,
            sources=kept.sources + asked.sources,
            labels=kept.labels + asked.labels,
        )

    @property
    def sizes(self) -> dict[str, int]:
        """How many pictures each part has."""
        return {field.name: len(getattr(self, field.name)) for field in fields(self)}


def split(samples: ImageSet) -> Parts:
    """Part picture files by a hash of their bytes, so that copies of a picture stay together.

    Raises:
        SampleError: There are too few pictures, or classes, for three parts.
    """
    samples = with_content_ids(samples)
    train, unseen = samples.split(UNSEEN, SEED)
    gallery, queries = unseen.split(QUERIES, SEED + 1)
    if len(set(train.labels)) < 2 or not gallery or not queries:
        raise SampleError(
            f"{len(samples)} pictures of {len(set(samples.labels))} classes are too few for training, a "
            "gallery and queries.",
            hint="Give at least two classes, each of about ten pictures or more.",
        )
    return Parts(train, gallery, queries)


def paths(samples: ImageSet) -> list[Path]:
    """The file of each sample, absolute."""
    return [Path(str(source)).absolute() for source in samples.sources]


def save_parts(path: Path, parts: Parts) -> None:
    """Write down which file is in which part, all or nothing."""
    written = {name: _columns(getattr(parts, name)) for name in parts.sizes}
    with replacing(path) as temporary:
        text = json.dumps({"classes": parts.train.classes, **written})
        temporary.write_text(text, encoding="utf-8")


def load_parts(path: Path) -> Parts:
    """Read what `save_parts` wrote."""
    written = json.loads(path.read_bytes())
    return Parts(*(_image_set(written[field.name], written["classes"]) for field in fields(Parts)))


def _columns(part: ImageSet) -> dict[str, object]:
    return {"ids": part.ids, "files": [str(path) for path in paths(part)], "labels": part.labels}


def _image_set(columns: Mapping[str, Any], classes: Sequence[str]) -> ImageSet:
    return ImageSet(
        tuple(columns["ids"]), tuple(map(Path, columns["files"])), tuple(columns["labels"]), tuple(classes)
    )
