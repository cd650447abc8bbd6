"""The answers of a gallery as a page of thumbnails."""

from collections.abc import Sequence
from pathlib import Path

from regraft.recipes.pages import Thumbnail, thumbnail, write_page
from regraft.recipes.search import Answer, Hit


def write_answers(answers: Sequence[Answer], out: Path, *, subtitle: str) -> None:
    """Write one self-contained HTML file: each query beside its hits, with score and name.

    A source that is gone or damaged is shown as a placeholder that says so.

    Raises:
        PlaceError: Nothing can be written at `out`.
    """
    shown = [
        {"query": _picture(str(answer.query)), "hits": [_hit(hit) for hit in answer.hits]}
        for answer in answers
    ]
    context = {"title": "Search results", "subtitle": subtitle, "answers": shown}
    write_page(out, "answers.html.j2", context)


def _picture(path: str) -> dict[str, object]:
    """A path as the page shows it: a thumbnail over the file's name and its folder's."""
    return {"thumbnail": thumbnail(path), "name": "/".join(Path(path).parts[-2:]), "path": path}


def _hit(hit: Hit) -> dict[str, object]:
    if hit.source is None:
        unknown = Thumbnail(None, defect="no source")
        return {"thumbnail": unknown, "name": hit.id, "path": "", "score": hit.score}
    return _picture(hit.source) | {"score": hit.score}
