import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from regraft.errors import ShapeError
from regraft.train.gradients import Loss, backward
from regraft.train.processes import launch, wrap


class Squares:
    def __init__(self) -> None:
        self.model = nn.Linear(3, 1).double()

    def loss(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
        y = self.model(batch["x"])
        return {"error": F.mse_loss(y, batch["y"]), "size": y.abs().mean()}

    def evaluate(self, model: nn.Module) -> dict[str, float]:
        return {}


def gradient(task: Squares, batch: dict[str, Tensor], num_chunks: int) -> tuple[Tensor, dict[str, Tensor]]:
    fabric = launch(accelerator="cpu")
    task.model.zero_grad()
    terms = backward(fabric, wrap(fabric, Loss(task)), batch, 0, num_chunks)
    return task.model.weight.grad.clone(), terms


@pytest.mark.parametrize("num_chunks", [2, 3, 7])
def test_chunks_add_up_to_the_whole_batch(num_chunks: int) -> None:
    task = Squares()
    batch = {"x": torch.randn(7, 3).double(), "y": torch.randn(7, 1).double()}
    whole, whole_terms = gradient(task, batch, 1)
    summed, terms = gradient(task, batch, num_chunks)
    # Algebra in float64: only the order of seven additions differs.
    assert torch.allclose(summed, whole, rtol=1e-13, atol=1e-14)
    assert terms.keys() == whole_terms.keys()
    for name, term in terms.items():
        assert term.item() == pytest.approx(whole_terms[name].item(), rel=1e-13)


def test_chunks_of_unequal_length_do_not_weigh_the_same() -> None:
    """The control: seven samples in two chunks, averaged plainly, is another gradient."""
    task = Squares()
    batch = {"x": torch.randn(7, 3).double(), "y": torch.randn(7, 1).double()}
    whole, _ = gradient(task, batch, 1)
    parts = [gradient(task, {k: v[rows] for k, v in batch.items()}, 1)[0] for rows in (slice(4), slice(4, 7))]
    assert not torch.allclose(sum(parts) / 2, whole, rtol=1e-6)


def test_more_chunks_than_samples_are_refused() -> None:
    with pytest.raises(ShapeError, match="batch of 2 cannot be split into 3"):
        gradient(Squares(), {"x": torch.zeros(2, 3).double(), "y": torch.zeros(2, 1).double()}, 3)


def test_tensors_of_a_batch_are_equally_long() -> None:
    with pytest.raises(ShapeError, match="differ in length"):
        gradient(Squares(), {"x": torch.zeros(2, 3).double(), "y": torch.zeros(3, 1).double()}, 1)


def test_a_term_is_one_number() -> None:
    class Unreduced(Squares):
        def loss(self, batch: dict[str, Tensor], step: int) -> dict[str, Tensor]:
            return {"error": self.model(batch["x"])[:, 0]}

    with pytest.raises(ShapeError, match=r"'error' has shape \(2,\)"):
        gradient(Unreduced(), {"x": torch.zeros(2, 3).double()}, 1)
