import hashlib
import json
import pickle
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn
from training_toys import Brightness, adamw, picture_batch, sgd, train_pictures

from regraft.errors import RunError
from regraft.train import checkpoint
from regraft.train.average import moving_average
from regraft.train.checkpoint import Trained

Build = Callable[[nn.Module], torch.optim.Optimizer]


def fused_adam(model: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(model.parameters(), lr=0.01, amsgrad=True, fused=True)


def stepped(build: Build, num_steps: int = 3) -> tuple[Brightness, Trained]:
    task = Brightness()
    trained = Trained(task.model, build(task.model), moving_average(task.model))
    for step in range(num_steps):
        trained.optimizer.zero_grad()
        sum(task.loss(picture_batch(step), step).values()).backward()
        trained.optimizer.step()
        trained.average.update_parameters(task.model)
    return task, trained


@pytest.mark.parametrize("build", [sgd, adamw, fused_adam])
def test_what_is_restored_is_what_was_saved(tmp_path: Path, build: Build) -> None:
    _, before = stepped(build)
    checkpoint.save(tmp_path, 3, before)
    _, after = stepped(build, num_steps=0)
    assert checkpoint.restore(tmp_path, after) == 3
    for name, tensors in before.tensors().items():
        others = after.tensors()[name]
        assert tensors.keys() == others.keys()
        for key, tensor in tensors.items():
            assert torch.equal(tensor, others[key]), key
            assert tensor.dtype == others[key].dtype, key
            assert tensor.stride() == others[key].stride(), key
    assert before.optimizer.state_dict()["param_groups"] == after.optimizer.state_dict()["param_groups"]
    assert after.model.first.weight is after.model.second.weight


@pytest.mark.parametrize("build", [sgd, adamw])
def test_the_next_step_is_the_same_to_the_bit(tmp_path: Path, build: Build) -> None:
    whole = train_pictures(tmp_path / "whole", 20, build)
    stop = iter(range(100))

    def broken(step: int):
        while next(stop) < 11:
            yield picture_batch(step)
            step += 1

    with pytest.raises(Exception, match="The data ended"):
        train_pictures(tmp_path / "broken", 20, build, broken)
    resumed = train_pictures(tmp_path / "broken", 20, build)
    for name, tensor in whole.model.state_dict().items():
        assert torch.equal(tensor, resumed.model.state_dict()[name]), name


def test_the_last_two_are_kept(tmp_path: Path) -> None:
    _, trained = stepped(sgd)
    for step in (5, 10, 15, 20):
        checkpoint.save(tmp_path, step, trained)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000015", "step-00000020"]


def test_half_written_ones_are_ignored_and_removed(tmp_path: Path) -> None:
    _, trained = stepped(sgd)
    checkpoint.save(tmp_path, 5, trained)
    half = tmp_path / "step-00000010.partial"
    half.mkdir()
    (half / "model.safetensors").write_bytes(b"half")
    assert checkpoint.restore(tmp_path, trained) == 5
    checkpoint.remove_partial(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["step-00000005"]


def flip_a_bit(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(content)


@pytest.mark.parametrize(
    ("file", "damage"),
    [
        ("model.safetensors", flip_a_bit),
        ("optimizer.safetensors", lambda path: path.write_bytes(path.read_bytes()[:-5])),
        ("average.safetensors", Path.unlink),
        ("state.json", lambda path: path.write_text('{"step": 10')),
        ("state.json", lambda path: path.write_text("{}")),
        ("state.json", Path.unlink),
    ],
)
def test_a_damaged_newest_one_is_an_error_and_not_an_older_one(
    tmp_path: Path, file: str, damage: Callable[[Path], None]
) -> None:
    _, trained = stepped(sgd)
    checkpoint.save(tmp_path, 5, trained)
    checkpoint.save(tmp_path, 10, trained)
    damage(tmp_path / "step-00000010" / file)
    with pytest.raises(RunError, match="step-00000010 is damaged") as caught:
        checkpoint.restore(tmp_path, trained)
    assert "continue from step-00000005" in str(caught.value)


def test_a_future_format_is_an_error(tmp_path: Path) -> None:
    _, trained = stepped(sgd)
    checkpoint.save(tmp_path, 5, trained)
    path = tmp_path / "step-00000005" / "state.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"format": 9}))
    with pytest.raises(RunError, match="format 9, expected 1"):
        checkpoint.restore(tmp_path, trained)


def test_another_model_optimizer_or_average_is_an_error(tmp_path: Path) -> None:
    _, trained = stepped(sgd)
    checkpoint.save(tmp_path, 5, trained)
    with pytest.raises(RunError, match="does not fit"):
        checkpoint.restore(tmp_path, Trained(nn.Linear(2, 2), trained.optimizer, trained.average))
    plain = torch.optim.SGD(trained.model.parameters(), lr=0.1)
    with pytest.raises(RunError, match="does not fit"):
        checkpoint.restore(tmp_path, Trained(trained.model, plain, trained.average))
    with pytest.raises(RunError, match="holds model, average, optimizer, but this run has model, optimizer"):
        checkpoint.restore(tmp_path, Trained(trained.model, trained.optimizer, None))


class Exploit:
    """Makes a folder when it is unpickled."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __reduce__(self) -> tuple[Callable[[Path], None], tuple[Path]]:
        return Path.mkdir, (self.folder,)


def test_reading_a_checkpoint_runs_no_code(tmp_path: Path) -> None:
    _, trained = stepped(sgd)
    checkpoint.save(tmp_path, 5, trained)
    place, folder = tmp_path / "step-00000005", tmp_path / "exploited"
    content = pickle.dumps(Exploit(folder))
    (place / "model.safetensors").write_bytes(content)
    state = json.loads((place / "state.json").read_text())
    state["digests"]["model"] = hashlib.blake2b(content, digest_size=16).hexdigest()
    (place / "state.json").write_text(json.dumps(state))
    with pytest.raises(RunError, match="damaged"):
        checkpoint.restore(tmp_path, trained)
    assert not folder.exists()
    pickle.loads(content)
    assert folder.exists()
