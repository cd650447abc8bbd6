"""Decode every picture once before training, so that none surprises it later."""

import json
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import PIL
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from regraft.errors import RecipeError, SampleError
from regraft.files import replacing
from regraft.vision.data import ImageSet, Picture, read_picture
from regraft.vision.images import BadImage

_CHUNK = 64
"""Pictures a worker decodes between two messages."""
_WORTH_A_POOL = 512
"""Fewer pictures than this are decoded sooner than workers have started."""
_NOT_THE_FILES_FAULT = ("missing file", "unreadable file")
"""Defects that may be gone at the next start, so that they are looked at again."""


@dataclass(frozen=True)
class Finding:
    """What decoding one picture showed.

    Args:
        notes: What had to be done to make it upright RGB.
        defect: The kind of defect; `None` if it can be read.
        detail: The defect in words.
    """

    notes: tuple[str, ...] = ()
    defect: str | None = None
    detail: str = ""


@dataclass(frozen=True)
class Inspection:
    """What an inspection found; `str` of it is a short report.

    Args:
        num_images: Pictures looked at.
        num_classes: Classes of the set.
        bad: Ids of the pictures left out, by kind of defect, each with the defect in words.
        notes: Ids of the good pictures that needed something done, by what was done.
        remarks: What is worth knowing about the set as a whole.
    """

    num_images: int
    num_classes: int
    bad: Mapping[str, Mapping[str, str]]
    notes: Mapping[str, Sequence[str]]
    remarks: tuple[str, ...]

    @property
    def num_bad(self) -> int:
        """Pictures left out."""
        return sum(map(len, self.bad.values()))

    @property
    def num_good(self) -> int:
        """Pictures kept."""
        return self.num_images - self.num_bad

    def __str__(self) -> str:
        counts = f"{self.num_good:,} good, {self.num_bad:,} left out"
        lines = [f"{self.num_images:,} images in {self.num_classes} classes: {counts}"]
        lines += [f"  left out, {defect}: {_examples(tuple(ids))}" for defect, ids in self.bad.items()]
        lines += [f"  kept, {note}: {_examples(ids)}" for note, ids in self.notes.items()]
        lines += [f"  {remark}" for remark in self.remarks]
        return "\n".join(lines)


def _examples(ids: Sequence[str], most: int = 3) -> str:
    more = f" and {len(ids) - most:,} more" if len(ids) > most else ""
    return f"{len(ids):,} ({', '.join(ids[:most])}{more})"


def inspect(
    samples: ImageSet, *, max_bad_share: float = 0.05, workers: int | None = None, cache: Path | None = None
) -> tuple[ImageSet, Inspection]:
    """Decode every picture once, and part the good from the bad.

    Files are decoded by several processes, which are started afresh: a script that calls this needs the
    usual `if __name__ == "__main__":`. Pictures from a dataset object are decoded in this process.

    Args:
        samples: What to inspect.
        max_bad_share: Largest share of bad pictures to go on with.
        workers: Processes; `None` is one a core, and 0 or 1 decodes in this process.
        cache: A JSON file of earlier findings. A file of the same path, size and modification time is
            not decoded again. It is written also when the inspection is interrupted, and made anew
            when it is damaged or another version of Pillow wrote it.

    Returns:
        The good samples, in their order, and what was found.

    Raises:
        SampleError: More than `max_bad_share` of the pictures are bad, or none is good.
        RecipeError: `max_bad_share` is not a share.
    """
    if not 0 <= max_bad_share <= 1:
        raise RecipeError(f"max_bad_share is {max_bad_share:g}, expected 0 to 1.")
    findings = _findings(samples.sources, os.cpu_count() or 1 if workers is None else workers, cache)
    inspection = _summarise(samples, findings)
    if inspection.num_bad > max_bad_share * len(samples) or inspection.num_good == 0:
        bad = "; ".join(f"{_examples(tuple(ids))} {defect}" for defect, ids in inspection.bad.items())
        share = inspection.num_bad / max(1, len(samples))
        raise SampleError(
            f"{inspection.num_bad:,} of {len(samples):,} pictures ({share:.1%}) cannot be read, "
            f"more than the {max_bad_share:.1%} allowed: {bad}.",
            hint="Mend or remove them, or raise max_bad_share.",
        )
    good = samples.take(index for index, finding in enumerate(findings) if finding.defect is None)
    return good, inspection


def _summarise(samples: ImageSet, findings: Sequence[Finding]) -> Inspection:
    bad: dict[str, dict[str, str]] = {}
    notes: dict[str, list[str]] = {}
    good: Counter[int] = Counter()
    for name, label, finding in zip(samples.ids, samples.labels, findings, strict=True):
        if finding.defect is not None:
            bad.setdefault(finding.defect, {})[name] = finding.detail
            continue
        good[label] += 1
        for note in finding.notes:
            notes.setdefault(note, []).append(name)
    lost = sorted(set(samples.labels) - good.keys())
    remarks = tuple(f"class {samples.classes[label]!r} has no image that can be read" for label in lost)
    return Inspection(len(samples), len(samples.classes), bad, notes, samples.notes + remarks)


def examine(picture: Picture) -> Finding:
    """Decode one picture and say how it went."""
    try:
        return Finding(read_picture(picture).notes)
    except BadImage as error:
        return Finding(defect=error.defect, detail=error.detail)


def _findings(sources: Sequence[Picture], workers: int, cache: Path | None) -> list[Finding]:
    """The finding for each source, from the cache where the file has not changed."""
    stamps = [_stamp(source) for source in sources]
    known = _load(cache) if cache else {}
    findings = [known.get(stamp) if stamp else None for stamp in stamps]
    pending = [index for index, finding in enumerate(findings) if finding is None]
    try:
        for index, finding in _examined(sources, pending, workers):
            findings[index] = finding
    finally:
        if cache and pending:
            _save(cache, stamps, findings)
    return [finding for finding in findings if finding is not None]


def _examined(
    sources: Sequence[Picture], pending: Sequence[int], workers: int
) -> Iterator[tuple[int, Finding]]:
    """Examine the pending sources in order, in a pool where that is quicker, with a progress bar."""
    pictures = [sources[index] for index in pending]
    are_files = all(isinstance(picture, str | Path) for picture in pictures)
    in_pool = workers > 1 and are_files and len(pictures) >= _WORTH_A_POOL
    findings = _examined_in_pool(pictures, workers) if in_pool else map(examine, pictures)
    columns = TextColumn("inspecting"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    console = Console(stderr=True)
    with Progress(*columns, console=console, disable=not console.is_terminal, transient=True) as progress:
        yield from zip(pending, progress.track(findings, total=len(pending)), strict=True)


def _examined_in_pool(paths: Sequence[Picture], workers: int) -> Iterator[Finding]:
    # Forking a process that has run torch's threads can hang the child, so workers are spawned.
    pool = ProcessPoolExecutor(workers, mp_context=get_context("spawn"))
    done = 0
    try:
        for finding in pool.map(examine, paths, chunksize=_CHUNK):
            yield finding
            done += 1
    except BrokenProcessPool as error:
        raise SampleError(
            f"A process died while decoding pictures, about at {paths[done]}.",
            hint="In a script, guard the call by __name__ == '__main__'; else find the file with workers=1.",
        ) from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _stamp(source: Picture) -> str | None:
    """What stays the same as long as a file does; `None` for what is not a file or not there."""
    if not isinstance(source, str | Path):
        return None
    try:
        status = Path(source).stat()
    except OSError:
        return None  # decoding will name the reason
    return f"{Path(source).absolute()}|{status.st_size}|{status.st_mtime_ns}"


def _load(cache: Path) -> dict[str, Finding]:
    try:
        stored = json.loads(cache.read_text(encoding="utf-8"))
        if stored["pillow"] != PIL.__version__:
            return {}
        return {
            stamp: Finding(tuple(notes), defect, detail)
            for stamp, (notes, defect, detail) in stored["files"].items()
        }
    # A missing or damaged cache costs time, never a finding: everything is decoded again.
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _save(cache: Path, stamps: Sequence[str | None], findings: Sequence[Finding | None]) -> None:
    files = {
        stamp: (finding.notes, finding.defect, finding.detail)
        for stamp, finding in zip(stamps, findings, strict=True)
        if stamp and finding and finding.defect not in _NOT_THE_FILES_FAULT
    }
    with replacing(cache) as draft:
        draft.write_text(json.dumps({"pillow": PIL.__version__, "files": files}), encoding="utf-8")
