"""The objectives, worked by hand, and what training does to batch norms."""

import math

import numpy as np
import pytest
import torch
from jaxtyping import Float
from space_pairs import made_pairs
from torch import Tensor, nn

from regraft.data.stream import Order
from regraft.retrieval.head import Head
from regraft.retrieval.objectives import (
    ClassError,
    DirectionError,
    InfoNCE,
    NearOrthogonal,
    NeighbourError,
    SameClass,
    SoftClassError,
    SquaredError,
)
from regraft.retrieval.order import closeness_of_two, entropy, ranking
from regraft.retrieval.tasks import Align, AlignWithVariance, attenuated, batches
from regraft.retrieval.transform import Affine, Transformation, TwoBranch, UncertainTwoBranch

# Three items of two numbers; two classes. Everything below is plain arithmetic on these.
OLD = [[1.0, 2.0], [0.5, -1.0], [-1.5, 0.25]]
NEW = [[0.8, 0.1], [0.2, -0.4], [-0.3, 0.9]]
LABELS = [0, 1, 1]
H = [[0.5, 0.25], [-0.75, 1.0]]
H_BIAS = [0.1, -0.2]
W = [[1.0, -2.0], [0.5, 1.5]]
S_WEIGHT, S_BIAS = [0.3, -0.6], 0.2
SMOOTHING = 0.1


class Known(Transformation):
    """z = H old + b, s = w z + c: a transformation small enough to work by hand."""

    def __init__(self) -> None:
        super().__init__(2, 2)
        self.inner = nn.Linear(2, 2)
        self.variance = nn.Linear(2, 1)
        with torch.no_grad():
            self.inner.weight.copy_(torch.tensor(H))
            self.inner.bias.copy_(torch.tensor(H_BIAS))
            self.variance.weight.copy_(torch.tensor([S_WEIGHT]))
            self.variance.bias.copy_(torch.tensor([S_BIAS]))

    def forward(
        self, old: Float[Tensor, "n 2"], side: Float[Tensor, "n s"] | None = None
    ) -> tuple[Float[Tensor, "n 2"], Float[Tensor, " n"]]:
        z = self.inner(old)
        return z, self.variance(z).flatten()


def dot(a: list[float], b: list[float]) -> float:
    return math.fsum(x * y for x, y in zip(a, b, strict=True))


def by_hand() -> tuple[float, list[float], list[float]]:
    """Loss, log-variances and errors of the batch, without torch."""
    log_variances, errors = [], []
    for old, new, label in zip(OLD, NEW, LABELS, strict=True):
        z = [dot(row, old) + bias for row, bias in zip(H, H_BIAS, strict=True)]
        similarity = math.fsum((a - b) ** 2 for a, b in zip(z, new, strict=True)) / 2
        logits = [dot(row, z) for row in W]
        log_sum = math.log(math.fsum(math.exp(logit) for logit in logits))
        target = [SMOOTHING / 2 + (1 - SMOOTHING) * (label == index) for index in range(2)]
        discrimination = -math.fsum(t * (logit - log_sum) for t, logit in zip(target, logits, strict=True))
        errors.append(similarity + discrimination)
        log_variances.append(dot(S_WEIGHT, z) + S_BIAS)
    terms = [0.5 * math.exp(-s) * error + 0.5 * s for s, error in zip(log_variances, errors, strict=True)]
    return math.fsum(terms) / 3, log_variances, errors


def batch() -> dict[str, Tensor]:
    return {"old": torch.tensor(OLD), "new": torch.tensor(NEW), "label": torch.tensor(LABELS)}


def fastfill() -> AlignWithVariance:
    objectives = [SquaredError(), ClassError(Head(torch.tensor(W)))]
    return AlignWithVariance(Known(), objectives, made_pairs(old=2, new=2), freeze_norms_after=10)


def test_fastfill_is_what_it_is_on_paper():
    loss, log_variances, _ = by_hand()
    task = fastfill()
    found = task.loss(batch(), 0)
    assert sum(found.values()).item() == pytest.approx(loss, abs=1e-6)
    sigma = task.model.transform(np.array(OLD, np.float32)).log_variance
    np.testing.assert_allclose(sigma, log_variances, atol=1e-6)
    by_size = sorted(range(3), key=lambda row: -log_variances[row])
    np.testing.assert_array_equal(ranking(sigma), by_size)
    assert by_size != [0, 1, 2], "an order that says nothing would pass"


def test_one_item_is_a_batch():
    """The released code squeezes the feature, and fails on one."""
    loss, log_variances, errors = by_hand()
    one = {name: tensor[1:2] for name, tensor in batch().items()}
    found = fastfill().loss(one, 0)
    expected = 0.5 * math.exp(-log_variances[1]) * errors[1] + 0.5 * log_variances[1]
    assert sum(found.values()).item() == pytest.approx(expected, abs=1e-6)
    assert expected != pytest.approx(loss)


def test_the_gradient_of_the_variance_reaches_the_vector():
    _, log_variances, errors = by_hand()
    task = fastfill()
    sum(task.loss(batch(), 0).values()).backward()
    by_bias = task.model.inner.bias.grad
    # ds/db is the variance's weight; without it the gradient would be 0.5 exp(-s) dL/db alone.
    through_s = [
        math.fsum(0.5 * (1 - math.exp(-s) * error) for s, error in zip(log_variances, errors, strict=True))
        / 3
        * w
        for w in S_WEIGHT
    ]
    detached = fastfill()
    z, s = detached.model(batch()["old"])
    error = SquaredError()(z, batch()) + ClassError(Head(torch.tensor(W)))(z, batch())
    attenuated(error, s.detach()).mean().backward()
    difference = by_bias - detached.model.inner.bias.grad
    np.testing.assert_allclose(difference.numpy(), through_s, atol=1e-6)


def test_the_variance_is_best_when_it_is_the_error():
    error = torch.tensor([0.2, 3.0], dtype=torch.float64)
    best = attenuated(error, error.log())
    for step in (-0.01, 0.01):
        assert bool((attenuated(error, error.log() + step) > best).all())


def test_a_head_for_longer_vectors_carries_their_length():
    weight, vectors = torch.randn(3, 4), torch.randn(5, 4)
    head = Head(weight, torch.ones(3), length=3.5)
    torch.testing.assert_close(head(vectors), 3.5 * vectors @ weight.T + 1)
    np.testing.assert_allclose(head.probabilities(vectors.numpy()).sum(axis=1), 1, rtol=1e-6)


def test_what_asks_for_imitation_is_content_with_the_new_vectors():
    new = torch.randn(6, 4)
    known = {"new": new, "label": torch.tensor([0, 1, 2, 0, 1, 2])}
    for objective in (SquaredError(), SoftClassError(Head(torch.randn(3, 4))), NeighbourError()):
        torch.testing.assert_close(objective(new, known), torch.zeros(6), atol=1e-6, rtol=0)
        assert bool((objective(new + torch.randn(6, 4), known) > 0).all())


def test_neighbours_and_classes_do_not_mind_lengths():
    z, known = torch.randn(6, 4), {"new": torch.randn(6, 4), "label": torch.tensor([0, 1, 2, 0, 1, 2])}
    for objective in (DirectionError(), NeighbourError(), InfoNCE(), SameClass()):
        torch.testing.assert_close(objective(z, known), objective(3 * z, known), atol=1e-5, rtol=1e-5)


def test_directions_by_hand():
    z, new = torch.tensor([[3.0, 4.0], [0.0, -2.0]]), torch.tensor([[0.5, 0.0], [0.0, 7.0]])
    torch.testing.assert_close(DirectionError()(z, {"new": new}), torch.tensor([0.4, 2.0]))


def test_neighbours_by_hand():
    new = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    z = torch.tensor([[0.0, 2.0], [0.0, 1.0], [0.6, 0.8]])
    wanted = _softmax([0.0 / 0.5, 0.6 / 0.5])
    found = _softmax([1.0 / 0.5, 0.8 / 0.5])
    divergence = math.fsum(p * math.log(p / q) for p, q in zip(wanted, found, strict=True))
    assert NeighbourError(0.5)(z, {"new": new})[0].item() == pytest.approx(divergence, abs=1e-6)


def test_same_class_by_hand():
    new = torch.tensor([[1.0, 0.0], [0.0, 1.0], [0.6, 0.8]])
    z = torch.tensor([[0.0, 2.0], [0.0, 1.0], [0.6, 0.8]])
    attention = _softmax([0.0 / 0.5, 1.0 / 0.5, 0.8 / 0.5])
    expected = -(math.log(attention[0]) + math.log(attention[2])) / 2
    found = SameClass(0.5)(z, {"new": new, "label": torch.tensor([0, 1, 0])})
    assert found[0].item() == pytest.approx(expected, abs=1e-6)


def test_a_matrix_may_stray_from_orthogonal_only_so_far():
    penalty = NearOrthogonal(allowed=1.0, sharpness=100.0)
    turned, _ = torch.linalg.qr(torch.randn(4, 4))
    near, far = Affine(turned, torch.zeros(4)), Affine(2 * turned, torch.zeros(4))
    assert penalty(near).item() == pytest.approx(0, abs=1e-5)
    assert penalty(far).item() == pytest.approx(6, abs=1e-4)  # four numbers of 4 - 1 on the diagonal


def test_batch_norms_are_frozen_in_the_second_half():
    pairs = made_pairs(64)
    model = UncertainTwoBranch(TwoBranch(6, 5, width=8))
    task = AlignWithVariance(model, [SquaredError()], pairs, freeze_norms_after=3)
    stream = batches(pairs, Order(64, 16, 0), 0)
    norm = next(part for part in model.modules() if isinstance(part, nn.BatchNorm1d))
    model.train()
    moved = []
    for step in range(6):
        before = norm.running_mean.clone()
        task.loss(next(stream), step)
        moved.append(not torch.equal(before, norm.running_mean))
    assert moved == [True, True, True, False, False, False]
    assert model.training
    one = {name: tensor[:1] for name, tensor in next(stream).items()}
    assert math.isfinite(task.loss(one, 6)["attenuated"].item())


def test_batches_can_begin_anywhere():
    pairs = made_pairs(40, side=2)
    order = Order(40, 16, 3)
    first = batches(pairs, order, 0)
    for _ in range(3):
        next(first)
    again = next(batches(pairs, order, 3))
    for name, tensor in next(first).items():
        assert torch.equal(tensor, again[name])
    assert set(again) == {"old", "new", "side", "label"}
    assert set(next(batches(pairs.without_side(), order, 0))) == {"old", "new", "label"}


def test_the_cosine_is_that_of_held_out_pairs():
    pairs = made_pairs(old=5, new=5)
    task = Align(Affine(torch.eye(5), torch.zeros(5)), [SquaredError()], pairs, freeze_norms_after=1)
    expected = (pairs.old * pairs.new).sum(axis=1).mean()
    with torch.no_grad():
        assert task.evaluate(task.model)["cosine"] == pytest.approx(expected, abs=1e-6)


def test_orders_put_the_undecided_first():
    probabilities = np.array([[0.98, 0.01, 0.01], [0.4, 0.3, 0.3], [0.5, 0.5, 0.0]], np.float32)
    assert entropy(probabilities)[1] == pytest.approx(-0.4 * math.log(0.4) - 0.6 * math.log(0.3), abs=1e-6)
    assert entropy(probabilities)[2] == pytest.approx(math.log(2), abs=1e-6)
    np.testing.assert_array_equal(ranking(entropy(probabilities)), [1, 2, 0])
    np.testing.assert_allclose(closeness_of_two(probabilities), [0.03, 0.9, 1.0], atol=1e-6)


def test_equal_scores_keep_their_order():
    np.testing.assert_array_equal(ranking(np.array([1.0, 2.0, 1.0, 2.0])), [1, 3, 0, 2])


def _softmax(logits: list[float]) -> list[float]:
    exponentials = [math.exp(logit) for logit in logits]
    return [value / math.fsum(exponentials) for value in exponentials]
