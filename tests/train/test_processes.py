import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.strategies.fsdp import FSDPStrategy
from safetensors.torch import load_file
from torch import Tensor, nn

from regraft.errors import RecipeError
from regraft.train.journal import read_events
from regraft.train.processes import launch, launched, mean_over_processes, synchronize_batch_norm

SCRIPT = Path(__file__).with_name("several.py")
STEPS = 24


def torchrun(directory: Path, part: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", "--standalone"]
    return subprocess.run(
        [*command, str(SCRIPT), str(directory), part], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What two processes made: whole runs, one stopped and one killed; and then the two continued."""
    directory = tmp_path_factory.mktemp("several")
    killed = torchrun(directory, "whole")
    assert killed.returncode != 0, "the last run of this part kills itself"
    assert read_events(directory / "killed")[-1].step < STEPS, killed.stderr
    continued = torchrun(directory, "continued")
    assert continued.returncode == 0, continued.stderr
    assert "broadcast_buffers" not in killed.stderr + continued.stderr
    return directory


def ended_with(runs: Path, name: str) -> list[dict[str, Tensor]]:
    return [load_file(runs / f"{name}-rank{rank}.safetensors") for rank in (0, 1)]


def test_two_processes_have_the_loss_curve_of_one(runs: Path, tmp_path: Path) -> None:
    sys.modules.pop("several", None)
    import several

    several.train_lines(tmp_path / "single")
    one, two = read_events(tmp_path / "single"), read_events(runs / "lines")
    # Float32 sums in another order: 2^-24 each, grown by 24 steps of momentum.
    assert [event.loss for event in two] == pytest.approx([event.loss for event in one], rel=1e-5)
    assert two[-1].evaluation == pytest.approx(one[-1].evaluation, rel=1e-5)


def test_running_statistics_are_the_mean_over_processes(runs: Path) -> None:
    first, second = ended_with(runs, "whole")
    alone = [load_file(runs / f"unsettled-rank{rank}.safetensors") for rank in (0, 1)]
    names = [name for name in first if name.endswith(("norm.running_mean", "norm.running_var"))]
    assert len(names) == 4, "of the model and of its average"
    for name in names:
        assert torch.equal(first[name], second[name])
    for name in ("norm.running_mean", "norm.running_var"):
        assert not torch.allclose(alone[0][name], alone[1][name])
        mean = (alone[0][name].double() + alone[1][name].double()) / 2
        settled = load_file(runs / "unsettled" / "checkpoints" / "step-00000003" / "model.safetensors")[name]
        assert torch.equal(settled, mean.float())


@pytest.mark.parametrize("name", ["whole", "stopped", "killed"])
def test_all_processes_end_alike_and_as_saved(runs: Path, name: str) -> None:
    first, second = ended_with(runs, name)
    saved = load_file(runs / name / "checkpoints" / f"step-{STEPS:08d}" / "model.safetensors")
    for key, value in saved.items():
        assert torch.equal(first[key], value)
        assert torch.equal(second[key], value)


def test_killed_processes_resume_to_the_bit(runs: Path) -> None:
    whole, killed = ended_with(runs, "whole")[0], ended_with(runs, "killed")[0]
    assert all(torch.equal(whole[name], killed[name]) for name in whole)
    assert (runs / "whole" / "events.jsonl").read_bytes() == (runs / "killed" / "events.jsonl").read_bytes()


def test_a_signal_to_one_process_stops_all_at_one_step(runs: Path) -> None:
    words = [(runs / f"interrupted-rank{rank}").read_text() for rank in (0, 1)]
    assert "by another process after step 10 of 24" in words[0]
    assert "by SIGTERM after step 10 of 24" in words[1]
    whole, stopped = ended_with(runs, "whole")[0], ended_with(runs, "stopped")[0]
    for name, value in whole.items():
        # Statistics were averaged once more, at the stop; that is one more rounding.
        assert torch.allclose(stopped[name], value, rtol=1e-5, atol=1e-7)


def test_all_processes_hear_why_a_run_is_refused(runs: Path) -> None:
    words = [(runs / f"refused-rank{rank}").read_text() for rank in (0, 1)]
    assert words[0] == words[1]
    assert "another recipe" in words[0]


def test_one_process_keeps_values_as_they_are() -> None:
    values = torch.rand(3)
    assert mean_over_processes(launch(accelerator="cpu"), values) is values


def test_half_precision_is_refused() -> None:
    with pytest.raises(RecipeError, match="16-true"):
        launched(Fabric(accelerator="cpu", devices=1, precision="16-true"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_sharding_is_refused() -> None:
    with pytest.raises(RecipeError, match="FSDP"):
        launched(Fabric(accelerator="cuda", devices=1, strategy=FSDPStrategy()))


def test_synchronized_batch_norm_needs_gpus() -> None:
    with pytest.raises(RecipeError, match="needs GPUs"):
        synchronize_batch_norm(nn.BatchNorm2d(3), launch(accelerator="cpu"))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_batch_norm_is_synchronized_on_gpus() -> None:
    model = synchronize_batch_norm(nn.Sequential(nn.BatchNorm2d(3)), launch(accelerator="cuda"))
    assert isinstance(model, nn.Sequential)
    assert isinstance(model[0], nn.SyncBatchNorm)
