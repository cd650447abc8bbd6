"""An evaluation as a page."""

import math
from pathlib import Path

from markupsafe import Markup

from regraft.recipes.evaluation import ModelEvaluation
from regraft.recipes.evaluation_charts import corruption_chart, reliability_chart
from regraft.recipes.pages import thumbnail, write_page
from regraft.vision.datasets import DatasetItem
from regraft.vision.evaluation import Mistake

NUM_WORST = 10


def write_evaluation_page(path: Path, evaluation: ModelEvaluation) -> None:
    """Write one HTML file that needs nothing beside it, all or nothing.

    Args:
        path: Where.
        evaluation: What was found.
    """
    scores, corruption = evaluation.scores, evaluation.corruption
    context = {
        "evaluation": evaluation,
        "scores": scores,
        "guess_nll": math.log(scores.num_classes),
        "guess_brier": 1 - 1 / scores.num_classes,
        "worst": scores.classes[:NUM_WORST],
        "mistakes": [_shown(mistake) for mistake in scores.mistakes],
        "reliability_chart": Markup(reliability_chart(scores.reliability)),
        "corruption": corruption,
        "corruption_chart": corruption and Markup(corruption_chart(corruption)),
        "baseline": evaluation.baseline,
    }
    write_page(path, "evaluation.html.j2", context)


def _shown(mistake: Mistake) -> dict[str, object]:
    source = mistake.source
    picture = thumbnail(source.read() if isinstance(source, DatasetItem) else source)
    return {"mistake": mistake, "thumbnail": picture}
