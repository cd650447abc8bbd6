"""How well a gallery would answer while it is upgraded, on pairs that nothing was learned from."""

from dataclasses import dataclass

import numpy as np

from regraft.errors import SampleError
from regraft.retrieval.curve import Curve, backfilling_curve
from regraft.retrieval.metrics import Evaluation, evaluate
from regraft.retrieval.nearest import nearest
from regraft.retrieval.order import ranking
from regraft.retrieval.pairs import Pairs
from regraft.retrieval.relevance import Relevance
from regraft.retrieval.transform import Transformation, Transformed

NUM_NEIGHBOURS = 10


@dataclass(frozen=True, eq=False)
class Judge:
    """Held-out pairs as a small gallery that is searched by its own items, each leaving itself out.

    With labels an answer is right if it is of the query's class. Without, it is right if the new model, on
    new vectors alone, has it among its ten nearest: that measures imitation of the new model, not relevance.
    """

    pairs: Pairs
    relevance: Relevance
    measure: str
    """What a quality is called: `mean_average_precision`, or `agreement@10`."""

    @classmethod
    def of(cls, pairs: Pairs) -> "Judge":
        """Judge by labels if there are any, by neighbours otherwise.

        Raises:
            SampleError: No two of the pairs have the same label.
        """
        if pairs.labels is not None:
            relevance = Relevance.by_labels(pairs.ids, pairs.ids, pairs.labels, pairs.labels)
            if not relevance.num_relevant.any():
                raise SampleError(
                    f"No two of the {len(pairs)} pairs to judge by have the same label.",
                    hint="Give more pairs, or no labels: then the new model's own answers count as right.",
                )
            return cls(pairs, relevance, "mean_average_precision")
        k = min(NUM_NEIGHBOURS, len(pairs) - 1)
        found = nearest(pairs.new, pairs.new, k, np.arange(len(pairs)))
        qrels = {name: {pairs.ids[row] for row in rows} for name, rows in zip(pairs.ids, found, strict=True)}
        return cls(pairs, Relevance.by_qrels(pairs.ids, pairs.ids, qrels), f"agreement@{k}")

    def quality(self, evaluation: Evaluation) -> float:
        """The one number that counts, from 0 to 1."""
        if self.pairs.labels is not None:
            return evaluation.mean_average_precision
        return evaluation.recall(self.ks[0])

    @property
    def ks(self) -> tuple[int, ...]:
        """Lengths of the lists of answers that are looked at."""
        return (min(NUM_NEIGHBOURS, len(self.pairs) - 1),)

    def before(self) -> Evaluation:
        """The gallery as it is: old vectors, searched by the old model."""
        return evaluate(self.pairs.old, self.pairs.old, self.relevance, ks=self.ks)

    def after(self) -> Evaluation:
        """The gallery fully encoded anew."""
        return evaluate(self.pairs.new, self.pairs.new, self.relevance, ks=self.ks)

    def curve(self, transformation: Transformation) -> Curve:
        """The gallery on its way, from all transformed to all new, the most uncertain first.

        Args:
            transformation: That knows its error.
        """
        transformed = transformed_pairs(transformation, self.pairs)
        assert transformed.log_variance is not None, "every transformation of the ladder knows its error"
        order = ranking(transformed.log_variance)
        return backfilling_curve(
            self.pairs.new, transformed.vectors, self.pairs.new, order, self.relevance, ks=self.ks
        )


def transformed_pairs(transformation: Transformation, pairs: Pairs) -> Transformed:
    """Transform the old vectors of pairs, with side-information if the transformation takes it."""
    return transformation.transform(pairs.old, pairs.side if transformation.side_dimension else None)
