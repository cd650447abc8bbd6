"""Labelled pictures, from a folder, a manifest or another library's dataset."""

import csv
import os
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from regraft.data.sample import content_id, number_copies, path_id
from regraft.errors import RecipeError, SampleError
from regraft.vision.datasets import DatasetItem, Label, MapDataset, class_names, content_of, index_labels
from regraft.vision.images import EXTENSIONS, BadImage, Decoded, Source, decode
from regraft.vision.split import held_out

Picture = Source | DatasetItem
"""Where the pixels of a sample are."""


@dataclass(frozen=True)
class ImageSet:
    """Labelled pictures, not yet decoded.

    Args:
        ids: A name a sample that does not depend on order, all different.
        sources: Where each picture is.
        labels: The class of each, an index into `classes`.
        classes: Class names, in the order of a classifier's outputs.
        notes: What is worth knowing about how the set came about, for a report.

    Raises:
        SampleError: Columns of different lengths, equal ids or a label without a class.
    """

    ids: tuple[str, ...]
    sources: tuple[Picture, ...]
    labels: tuple[int, ...]
    classes: tuple[str, ...]
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.sources) == len(self.labels):
            raise SampleError(
                f"{len(self.ids)} ids, {len(self.sources)} sources and {len(self.labels)} labels; "
                "expected as many of each."
            )
        if len(set(self.ids)) < len(self.ids):
            name, times = Counter(self.ids).most_common(1)[0]
            raise SampleError(f"{times} samples have the id {name!r}; expected every id once.")
        if self.labels and not set(self.labels) <= set(range(len(self.classes))):
            raise SampleError(
                f"Labels run from {min(self.labels)} to {max(self.labels)}, "
                f"expected 0 to {len(self.classes) - 1} for {len(self.classes)} classes."
            )

    def __len__(self) -> int:
        return len(self.ids)

    def __repr__(self) -> str:
        return f"ImageSet({len(self):,} images in {len(self.classes)} classes)"

    def read(self, index: int) -> Decoded:
        """Decode one picture.

        Raises:
            BadImage: It cannot be read.
        """
        return read_picture(self.sources[index])

    def take(self, indices: Iterable[int], *notes: str) -> "ImageSet":
        """The samples at `indices`, in that order, with the same classes and further notes."""
        chosen = tuple(indices)
        return ImageSet(
            tuple(self.ids[i] for i in chosen),
            tuple(self.sources[i] for i in chosen),
            tuple(self.labels[i] for i in chosen),
            self.classes,
            self.notes + notes,
        )

    def split(self, fraction: float, seed: int) -> "tuple[ImageSet, ImageSet]":
        """Hold out about `fraction` of the samples: the rest first, the held-out second.

        Whether a sample is held out depends on its id and the seed, so samples added later move no
        other. The exceptions keep classes whole: where chance would give one part all samples of a
        class, the one nearest the threshold changes sides. A class that cannot be on both sides is named
        in the notes of the part that lacks it.

        Samples whose ids differ in the copy number alone (`a` and `a#2`) stay together. Where ids are
        paths, copies of a file have other ids and may be torn apart; `with_content_ids` before it keeps
        them together.

        Raises:
            RecipeError: `fraction` is not between 0 and 1.
        """
        if not 0 < fraction < 1:
            raise RecipeError(f"The held-out fraction is {fraction:g}, expected a share between 0 and 1.")
        chosen = held_out(self.ids, self.labels, fraction, seed)
        parts = [i for i in range(len(self)) if i not in chosen], sorted(chosen)
        kept, kept_out = (
            self.take(part, *self._lacking(part, name))
            for part, name in zip(parts, ("training", "held-out"), strict=True)
        )
        return kept, kept_out

    def _lacking(self, part: Sequence[int], name: str) -> list[str]:
        """Notes on the classes this set has and the part does not."""
        lost = set(self.labels) - {self.labels[i] for i in part}
        return [f"class {self.classes[label]!r} has no image in the {name} part" for label in sorted(lost)]


def read_picture(source: Picture) -> Decoded:
    """Decode a picture of any kind of source.

    Raises:
        BadImage: It cannot be read.
    """
    return decode(source.read() if isinstance(source, DatasetItem) else source)


def identity(samples: ImageSet) -> dict[str, int | str]:
    """What names a set of pictures, whatever their order: how many, and a hash of ids and classes."""
    lines = sorted(
        f"{name}\t{samples.classes[label]}" for name, label in zip(samples.ids, samples.labels, strict=True)
    )
    return {"num_pictures": len(samples), "digest": content_id("\n".join(lines).encode())}


def with_content_ids(samples: ImageSet) -> ImageSet:
    """The same samples, each named by its content: a file by its bytes, a picture in memory by its pixels.

    Copies get numbers, so a split keeps them together whatever their names and classes were. Every
    picture is read once. One that cannot be read keeps its id.
    """
    ids = map(_content_id, samples.ids, samples.sources)
    return replace(samples, ids=number_copies(ids))


def _content_id(sample_id: str, source: Picture) -> str:
    try:
        content = source.content()[0] if isinstance(source, DatasetItem) else content_of(source)
    except BadImage:
        # Not for a split to report: whoever decodes the picture says what is wrong with it.
        return sample_id
    return content_id(content)


def from_folder(root: str | Path) -> ImageSet:
    """Pictures in a folder a class: `root/class/name.jpg`, at any depth below the class.

    Hidden files and files that are not named like a picture are no samples; the notes count them.

    Raises:
        SampleError: No such folder, no class folders in it, or no picture in any of them.
    """
    root = Path(root)
    if not root.is_dir():
        raise SampleError(f"{root} is not a folder.", hint="Give a folder that holds one folder a class.")
    classes = sorted(
        entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith(".")
    )
    beside = [entry.name for entry in root.iterdir() if entry.is_file() and _is_picture(entry)]
    if not classes:
        raise SampleError(
            f"{root} has no class folders; {len(beside)} pictures lie directly in it.",
            hint="Put the pictures of each class into a folder of its own, or list them in a CSV manifest.",
        )
    skipped: Counter[str] = Counter({"pictures beside the class folders": len(beside)})
    found = [(path, label) for label, name in enumerate(classes) for path in _pictures(root / name, skipped)]
    if not found:
        raise SampleError(
            f"The {len(classes)} class folders of {root} hold no pictures.",
            hint=f"Pictures end in {', '.join(sorted(EXTENSIONS))}.",
        )
    paths, labels = zip(*found, strict=True)
    filled = set(labels)
    empty = [name for label, name in enumerate(classes) if label not in filled]
    notes = [f"class {name!r} has no images" for name in empty]
    notes += [f"not read: {count} {what}" for what, count in sorted(skipped.items()) if count]
    return ImageSet(tuple(path_id(path, root) for path in paths), paths, labels, tuple(classes), tuple(notes))


def _is_picture(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".")


def _pictures(folder: Path, skipped: Counter[str]) -> list[Path]:
    """All pictures below `folder`, sorted; what is passed over is counted in `skipped`."""
    pictures: list[Path] = []
    for path in _files(folder):
        if any(part.startswith(".") for part in path.relative_to(folder).parts):
            skipped["hidden files"] += 1
        elif _is_picture(path):
            pictures.append(path)
        else:
            skipped[
                f"files ending in {path.suffix.lower()}" if path.suffix else "files without an ending"
            ] += 1
    return sorted(pictures, key=Path.as_posix)


def _files(folder: Path) -> Iterator[Path]:
    """Files below `folder`, also through links, each real folder once so that a circle of links ends."""
    visited: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True):
        if (real := os.path.realpath(parent)) in visited:
            folders.clear()
            continue
        visited.add(real)
        yield from (Path(parent, name) for name in names)


def from_manifest(csv_path: str | Path) -> ImageSet:
    """Pictures listed in a CSV file with the columns `path` and `label`.

    Paths are relative to the manifest's folder and name the samples as they are written. Classes are
    the sorted labels. A file that is listed but missing is a bad sample, which `inspect` names.

    Raises:
        SampleError: The manifest is missing or empty, lacks a column or a value, or gives one path two
            labels.
    """
    csv_path = Path(csv_path)
    if not csv_path.is_file():
        raise SampleError(
            f"{csv_path} is not a file.", hint="Give a CSV file with the columns path and label."
        )
    rows = _manifest_rows(csv_path)
    label_of: dict[str, str] = {}
    for path, label in rows:
        if label_of.setdefault(path, label) != label:
            raise SampleError(f"{csv_path} gives {path} two labels, {label_of[path]!r} and {label!r}.")
    classes = sorted(set(label_of.values()))
    index_of = {name: index for index, name in enumerate(classes)}
    return ImageSet(
        number_copies(path for path, _ in rows),
        tuple(csv_path.parent / path for path, _ in rows),
        tuple(index_of[label] for _, label in rows),
        tuple(classes),
    )


def _manifest_rows(csv_path: Path) -> list[tuple[str, str]]:
    """Pairs of path and label."""
    with csv_path.open(newline="", encoding="utf-8-sig") as file:
        reader = csv.DictReader(file, skipinitialspace=True)
        columns = [name.strip() for name in reader.fieldnames or ()]
        missing = [name for name in ("path", "label") if name not in columns]
        if missing:
            raise SampleError(
                f"{csv_path} has no column {' and no column '.join(missing)}; "
                f"it has {', '.join(columns) or 'none'}.",
                hint="Its first line should read: path,label",
            )
        reader.fieldnames = columns
        rows: list[tuple[str, str]] = []
        for row in reader:
            path, label = (row["path"] or "").strip(), (row["label"] or "").strip()
            if not path or not label:
                raise SampleError(
                    f"{csv_path}, line {reader.line_num}: expected a path and a label, got {row}."
                )
            rows.append((path, label))
    if not rows:
        raise SampleError(f"{csv_path} lists no pictures.")
    return rows


def from_dataset(
    dataset: object, *, image_key: str = "image", label_key: str = "label", max_bad_share: float = 0.05
) -> ImageSet:
    """The samples of a torchvision or Hugging Face dataset, or of anything with length and indexing.

    Items are pairs (picture, label) or dictionaries. Pictures are PIL images, arrays, tensors, paths or
    encoded bytes. Class names come from `dataset.classes` or `dataset.features[label_key].names` where
    there is one; else the labels found are the classes. Samples are named by content, so every picture
    is read once; a Hugging Face column cast to `Image(decode=False)` is named by its encoded bytes,
    which is much quicker.

    Args:
        dataset: Read on demand afterwards, so it must stay usable.
        image_key: Where an item that is a dictionary has its picture.
        label_key: Where it has its label.
        max_bad_share: Share of the items that may be unreadable. They are left out, because their
            labels are unknown, and named in the notes.

    Raises:
        SampleError: The dataset is empty or a stream, an item is of another form, or too many are bad.
    """
    if not isinstance(dataset, MapDataset) or len(dataset) == 0:
        raise SampleError(
            f"The dataset, a {type(dataset).__name__}, is empty or a stream; "
            "expected a length and items by number.",
            hint="Load a stream into memory or onto disk first.",
        )
    items = [DatasetItem(dataset, index, image_key, label_key) for index in range(len(dataset))]
    named, notes = _named(items, max_bad_share)
    labels, classes = index_labels([label for _, _, label in named], class_names(dataset, label_key))
    ids = (
        content_id(f"{name} {classes[label]}".encode("utf-8", "surrogatepass"))
        for (_, name, _), label in zip(named, labels, strict=True)
    )
    return ImageSet(number_copies(ids), tuple(item for item, _, _ in named), labels, classes, notes)


def _named(
    items: Sequence[DatasetItem], max_bad_share: float
) -> tuple[list[tuple[DatasetItem, str, Label]], tuple[str, ...]]:
    """The readable items, each with its content id and its label, and a note on the others."""
    named: list[tuple[DatasetItem, str, Label]] = []
    bad: list[str] = []
    for item in items:
        try:
            content, label = item.content()
            named.append((item, content_id(content), label))
        except BadImage as error:
            bad.append(str(error))
    if not bad:
        return named, ()
    note = f"left out: {len(bad)} of {len(items)} items that cannot be read, such as {'; '.join(bad[:3])}"
    if not named or len(bad) > max_bad_share * len(items):
        raise SampleError(f"{note} More than {max_bad_share:.0%} is too much.", hint="Raise max_bad_share.")
    return named, (note,)
