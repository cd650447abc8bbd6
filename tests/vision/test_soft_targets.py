"""The sparse divergence is the dense one, without the dense targets."""

import pytest
import torch
from torch import Tensor

from regraft.errors import ShapeError
from regraft.vision.soft_targets import SoftTargets, sparse_kl


def random_targets(num: int, num_classes: int, k: int) -> tuple[SoftTargets, Tensor]:
    """Targets, and the dense distribution that they stand for, in float64."""
    generator = torch.Generator().manual_seed(num_classes * 100 + k)
    whole = (3 * torch.randn(num, num_classes, generator=generator, dtype=torch.float64)).softmax(1)
    kept, ids = whole.topk(k, dim=1)
    rest = (1 - kept.sum(1)).clamp(0, 1) * (num_classes > k)
    each = (rest / max(1, num_classes - k))[:, None].expand(-1, num_classes)
    return SoftTargets(ids, kept, rest), each.clone().scatter_(1, ids, kept)


@pytest.mark.parametrize(("num_classes", "k"), [(10, 3), (1000, 10), (5, 5), (7, 1)])
def test_it_equals_the_dense_divergence(num_classes: int, k: int) -> None:
    targets, dense = random_targets(8, num_classes, k)
    logits = torch.randn(8, num_classes, dtype=torch.float64, requires_grad=True)
    sparse = sparse_kl(logits, targets)
    (ours,) = torch.autograd.grad(sparse, logits)
    whole = torch.nn.functional.kl_div(logits.log_softmax(1), dense, reduction="batchmean")
    (theirs,) = torch.autograd.grad(whole, logits)
    torch.testing.assert_close(sparse, whole, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(ours, theirs, rtol=1e-10, atol=1e-12)
    spoilt = SoftTargets(targets.ids, targets.probabilities * 0.9, targets.rest)
    assert not torch.isclose(sparse_kl(logits, spoilt), whole, rtol=1e-3)


def test_it_is_zero_for_who_agrees() -> None:
    targets, dense = random_targets(8, 20, 4)
    assert abs(sparse_kl(dense.log(), targets)) < 1e-12


def test_labels_as_targets_give_the_cross_entropy() -> None:
    logits, labels = torch.randn(6, 9), torch.tensor([0, 8, 3, 3, 1, 7])
    entropy = torch.nn.functional.cross_entropy(logits, labels)
    torch.testing.assert_close(sparse_kl(logits, SoftTargets.of_labels(labels, 4)), entropy)
    torch.testing.assert_close(sparse_kl(logits, SoftTargets.of_labels(labels, 1)), entropy)
    shares = torch.zeros(6, 9)
    shares[:, 2], shares[:, 5] = 0.3, 0.7
    mixed = torch.nn.functional.kl_div(logits.log_softmax(1), shares, reduction="batchmean")
    torch.testing.assert_close(sparse_kl(logits, SoftTargets.of_labels(shares, 2)), mixed)


def test_more_targets_than_logits_are_refused() -> None:
    with pytest.raises(ShapeError, match="list 4 classes, expected at most 3"):
        sparse_kl(torch.randn(2, 3), random_targets(2, 9, 4)[0])


def test_a_mixed_label_does_not_fit_into_one_class() -> None:
    with pytest.raises(ShapeError, match="cannot hold the label of a mixed picture"):
        SoftTargets.of_labels(torch.tensor([[0.6, 0.4, 0.0]]), 1)
