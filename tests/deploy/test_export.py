"""What every target must do. What is special about one is in the file named after it."""

import struct
import subprocess
import sys
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from regraft.deploy.export import TARGETS, Artifact, export
from regraft.deploy.parity import compare
from regraft.errors import ParityError, PlaceError, RecipeError, ShapeError, TrainModeError

HERE = Path(__file__).parent
RUNNABLE = [name for name, target in TARGETS.items() if target.can_run()]


@pytest.fixture(params=["mobileone", "fastvit"])
def network(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def model(request: pytest.FixtureRequest, network: str) -> nn.Module:
    return request.getfixturevalue(network)


@pytest.fixture(params=["onnx", "openvino", "executorch", "coreml"])
def artifact(
    request: pytest.FixtureRequest, network: str, exported: Callable[[str, str], Artifact]
) -> Artifact:
    return exported(request.param, network)


def test_is_proven_where_it_can_run(artifact: Artifact):
    # 1e-4 of the largest logit: float32 sums of a few hundred terms in another order, layer after layer;
    # measured 3e-7 to 6e-7 on these nets. The negative control is test_one_wrong_weight_is_found.
    if artifact.target in RUNNABLE:
        assert artifact.verified
        assert artifact.parity is not None
        assert artifact.parity.passed
        assert artifact.parity.tolerance == TARGETS[artifact.target].tolerance
        assert artifact.parity.num_inputs >= 4 + 3
        assert ": same: worst difference" in str(artifact)
    else:
        assert not artifact.verified
        assert artifact.parity is None
        assert "exported, not verified" in str(artifact)


def test_answers_like_the_model(artifact: Artifact, model: nn.Module):
    if artifact.target not in RUNNABLE:
        pytest.skip(f"{artifact.target} cannot run on {sys.platform}")
    runner = TARGETS[artifact.target].load(artifact.path)
    x = torch.randn(1, 3, 32, 32, generator=torch.Generator().manual_seed(9))
    assert compare(model, runner, x).passed
    first, second = runner(x), runner(x + 1)
    assert not torch.equal(first, second)
    assert torch.equal(first, runner(x)), "an answer must not change when the next one is computed"


def test_carries_its_metadata(artifact: Artifact):
    read = TARGETS[artifact.target].read_metadata(artifact.path)
    assert read == artifact.metadata
    assert {"labels", "note", "empty"} < read.keys()


def test_leaves_nothing_else(artifact: Artifact):
    expected = {artifact.path} | {artifact.path.with_suffix(s) for s in TARGETS[artifact.target].companions}
    assert set(artifact.path.parent.iterdir()) == expected
    files = [file for path in expected for file in [path, *path.rglob("*")] if file.is_file()]
    assert artifact.size_bytes == sum(file.stat().st_size for file in files) > 100_000


def test_names_no_file_of_this_machine(artifact: Artifact):
    places = [str(HERE.parents[1]).encode(), str(Path(torch.__file__).parent).encode()]
    for file in artifact.path.parent.rglob("*"):
        if file.is_file():
            content = file.read_bytes()
            assert not any(place in content for place in places), file.name


def test_refuses_inputs_it_cannot_take(artifact: Artifact):
    if artifact.target not in RUNNABLE:
        pytest.skip(f"{artifact.target} cannot run on {sys.platform}")
    runner = TARGETS[artifact.target].load(artifact.path)
    with pytest.raises(ShapeError, match="this artifact takes"):
        runner(torch.zeros(1, 4, 32, 32))
    with pytest.raises(ShapeError, match="this artifact takes"):
        runner(torch.zeros(3, 32, 32))
    if not TARGETS[artifact.target].resizable:
        with pytest.raises(ShapeError, match=r"takes \(1, 3, 32, 32\)"):
            runner(torch.zeros(2, 3, 32, 32))


@pytest.mark.parametrize("target", RUNNABLE)
def test_one_wrong_weight_is_found(
    target: str, toy: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    sound = TARGETS[target]
    bias = toy.get_parameter("conv.bias").detach().numpy().tobytes()

    def write(
        model: nn.Module,
        example: Tensor,
        path: Path,
        metadata: Mapping[str, str],
        dynamic_axes: Collection[int],
    ) -> None:
        sound.write(model, example, path, metadata, dynamic_axes)
        weights = path.with_suffix((*sound.companions, sound.suffix)[0])
        content = weights.read_bytes()
        assert content.count(bias) == 1
        (value,) = struct.unpack("<f", bias[:4])
        weights.write_bytes(content.replace(bias, struct.pack("<f", value + 0.1) + bias[4:]))

    monkeypatch.setitem(TARGETS, "spoiled", replace(sound, write=write))
    path = tmp_path / f"model{sound.suffix}"
    with pytest.raises(ParityError, match=r"The exported artifact is not the model\. DIFFERENT: worst"):
        export(toy, path, example=torch.zeros(1, 3, 16, 16), target="spoiled", metadata={})
    assert list(tmp_path.iterdir()) == []


def test_lost_metadata_is_found(toy: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    forgetful = replace(TARGETS["onnx"], read_metadata=lambda path: {"labels": "x"})
    monkeypatch.setitem(TARGETS, "forgetful", forgetful)
    with pytest.raises(ParityError, match="did not survive the export: labels, size"):
        export(
            toy,
            tmp_path / "model.onnx",
            example=torch.zeros(1, 3, 16, 16),
            target="forgetful",
            metadata={"labels": "y", "size": "16"},
        )
    assert list(tmp_path.iterdir()) == []


def test_a_model_that_fixes_its_size_is_told_so(tmp_path: Path):
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.positions = nn.Parameter(torch.randn(1, 3, 16, 16))

        def forward(self, x: Tensor) -> Tensor:
            return (x + self.positions).amax((2, 3))

    model, example, path = Positions().eval(), torch.zeros(1, 3, 16, 16), tmp_path / "model.onnx"
    with pytest.raises(ShapeError, match=r"cannot take inputs with other sizes on axes \[0, 2, 3\]"):
        export(model, path, example=example, metadata={})
    assert list(tmp_path.iterdir()) == []
    assert export(model, path, example=example, metadata={}, dynamic_axes=(0,)).verified
    runner = TARGETS["onnx"].load(path)
    assert runner(torch.zeros(5, 3, 16, 16)).shape == (5, 3)
    with pytest.raises(ShapeError, match=r"takes \(any, 3, 16, 16\)"):
        runner(torch.zeros(1, 3, 32, 32))


@pytest.mark.parametrize("target", ["executorch", "coreml"])
def test_a_target_that_fixes_sizes_says_so(target: str, toy: nn.Module, tmp_path: Path):
    path = tmp_path / f"model{TARGETS[target].suffix}"
    with pytest.raises(ShapeError, match="one fixed input size"):
        export(toy, path, example=torch.zeros(1, 3, 16, 16), target=target, metadata={}, dynamic_axes=(0,))


def test_refuses_what_should_not_be_exported(toy: nn.Module, tmp_path: Path):
    from regraft.vision.models import create_model

    def attempt(model: nn.Module, name: str = "model.onnx", **options: object) -> None:
        export(model, tmp_path / name, example=torch.zeros(1, 3, 16, 16), metadata={}, **options)  # type: ignore

    with pytest.raises(TrainModeError, match="training mode"):
        attempt(toy.train())
    toy.eval()
    with pytest.raises(TrainModeError, match=r"training branches[^$]*regraft fuse MODEL --out FUSED"):
        attempt(create_model("mobileone_mini").eval())
    with pytest.raises(RecipeError, match="No export target 'onyx'"):
        attempt(toy, target="onyx")
    with pytest.raises(RecipeError, match=r"Call it model\.onnx"):
        attempt(toy, "model.bin")
    with pytest.raises(ShapeError, match="the example has axes 0 to 3"):
        attempt(toy, dynamic_axes=(4,))
    with pytest.raises(RecipeError, match=r"conv\.weight is torch\.float16 on cpu"):
        attempt(toy.half())
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("target", ["onnx", "openvino", "coreml"])
def test_replaces_an_older_artifact(target: str, toy: nn.Module, tmp_path: Path):
    path = tmp_path / f"model{TARGETS[target].suffix}"
    for version in ("1", "2"):
        export(toy, path, example=torch.zeros(1, 3, 16, 16), target=target, metadata={"version": version})
    assert TARGETS[target].read_metadata(path) == {"version": "2"}
    assert len(list(tmp_path.iterdir())) == 1 + len(TARGETS[target].companions)


def kill(target: str, path: Path, where: str) -> None:
    command = [sys.executable, str(HERE / "killed_export.py"), target, str(path), where]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr


def visible(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")}


def test_killed_while_proving_the_old_artifact_stays(tmp_path: Path, toy: nn.Module):
    path = tmp_path / "model.onnx"
    kill("onnx", path, "proof")
    assert visible(tmp_path) == set()
    export(toy, path, example=torch.zeros(1, 3, 16, 16), metadata={"version": "old"})
    before = path.read_bytes()
    kill("onnx", path, "proof")
    assert path.read_bytes() == before


def test_killed_between_two_files_there_is_no_mix(tmp_path: Path, toy: nn.Module):
    path = tmp_path / "model.xml"
    export(toy, path, example=torch.zeros(1, 3, 16, 16), target="openvino", metadata={})
    kill("openvino", path, "publish")
    assert visible(tmp_path) == {"model.bin"}, "new weights must not meet the old graph"


def test_killed_before_the_last_step_the_older_package_is_kept(tmp_path: Path, toy: nn.Module):
    path = tmp_path / "model.mlpackage"
    export(toy, path, example=torch.zeros(1, 3, 16, 16), target="coreml", metadata={"version": "old"})
    kill("coreml", path, "publish")
    assert visible(tmp_path) == set()
    (kept,) = tmp_path.glob(".*/older/model.mlpackage")
    assert TARGETS["coreml"].read_metadata(kept) == {"version": "old"}


def content(folder: Path) -> dict[str, bytes]:
    return {str(file.relative_to(folder)): file.read_bytes() for file in folder.rglob("*") if file.is_file()}


@pytest.mark.parametrize("taken", ["model.bin", "model.xml"])
def test_a_folder_in_the_way_is_refused_before_the_work(taken: str, toy: nn.Module, tmp_path: Path):
    (tmp_path / taken).mkdir()
    (tmp_path / taken / "mine").write_text("precious")
    other = "model.xml" if taken == "model.bin" else "model.bin"
    (tmp_path / other).write_text("older")
    before = content(tmp_path)

    def write(*_: object) -> None:
        pytest.fail("nothing is to be written")

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TARGETS, "idle", replace(TARGETS["openvino"], write=write))
        with pytest.raises(PlaceError, match=rf"{taken} is a folder; expected the name of a file"):
            export(
                toy,
                tmp_path / "model.xml",
                example=torch.zeros(1, 3, 16, 16),
                target="idle",
                metadata={},
            )
    assert content(tmp_path) == before


def test_what_is_no_core_ml_package_is_refused(toy: nn.Module, tmp_path: Path):
    path = tmp_path / "model.mlpackage"
    path.write_text("mine")
    with pytest.raises(PlaceError, match="is a file; expected a folder or a free name"):
        export(toy, path, example=torch.zeros(1, 3, 16, 16), target="coreml", metadata={})
    path.unlink()
    path.mkdir()
    (path / "mine").write_text("precious")
    with pytest.raises(PlaceError, match=r"a folder of something else, without a Manifest\.json"):
        export(toy, path, example=torch.zeros(1, 3, 16, 16), target="coreml", metadata={})
    assert content(tmp_path) == {"model.mlpackage/mine": b"precious"}


def test_a_folder_made_during_the_proof_is_found(toy: nn.Module, tmp_path: Path):
    path = tmp_path / "model.xml"
    options = {"example": torch.zeros(1, 3, 16, 16), "target": "openvino"}
    export(toy, path, metadata={"version": "old"}, **options)  # type: ignore
    path.with_suffix(".bin").unlink()
    graph = path.read_bytes()

    def intrude() -> Iterator[Tensor]:
        path.with_suffix(".bin").mkdir()
        path.with_suffix(".bin").joinpath("mine").write_text("precious")
        yield torch.ones(1, 3, 16, 16)

    with pytest.raises(PlaceError, match=r"model\.bin is a folder"):
        export(toy, path, metadata={}, inputs=intrude(), **options)  # type: ignore
    assert content(tmp_path) == {"model.xml": graph, "model.bin/mine": b"precious"}


@pytest.mark.parametrize("has_older", [True, False])
def test_an_artifact_that_cannot_be_put_whole_leaves_the_older(
    has_older: bool, toy: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # Its third file is never written, so that publishing fails with the older artifact already away, and
    # the new weights, which come before it, already in place.
    lacking = replace(TARGETS["openvino"], companions=(".more", ".bin"))
    monkeypatch.setitem(TARGETS, "lacking", lacking)
    path, example = tmp_path / "model.xml", torch.zeros(1, 3, 16, 16)
    if has_older:
        export(toy, path, example=example, target="openvino", metadata={"version": "old"})
    before = content(tmp_path)
    with torch.no_grad():
        toy.get_parameter("conv.bias").add_(1)
    with pytest.raises(FileNotFoundError, match=r"model\.more"):
        export(toy, path, example=example, target="lacking", metadata={"version": "new"})
    assert content(tmp_path) == before


def test_a_place_under_a_file_is_refused(toy: nn.Module, tmp_path: Path):
    (tmp_path / "file").write_text("mine")
    with pytest.raises(PlaceError, match="file is not a folder"):
        export(toy, tmp_path / "file" / "model.onnx", example=torch.zeros(1, 3, 16, 16), metadata={})


@pytest.mark.parametrize(
    ("size_wrong", "axis"), [("batch", 0), ("height", 2), ("width", 3)], ids=lambda value: str(value)
)
def test_a_wrong_answer_at_another_size_is_found(
    size_wrong: str, axis: int, toy: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    def load(path: Path) -> Callable[[Tensor], Tensor]:
        sound = TARGETS["onnx"].load(path)
        return lambda x: sound(x) + (x.shape[axis] != (1, 3, 16, 16)[axis])

    monkeypatch.setitem(TARGETS, "brittle", replace(TARGETS["onnx"], load=load))
    path, example = tmp_path / "model.onnx", torch.zeros(1, 3, 16, 16)
    with pytest.raises(ParityError, match="is not the model"):
        export(toy, path, example=example, target="brittle", metadata={})
    assert export(toy, path, example=example, target="brittle", metadata={}, dynamic_axes=()).verified


def test_each_target_has_its_own_agreement(toy: nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    def load(path: Path) -> Callable[[Tensor], Tensor]:
        sound = TARGETS["onnx"].load(path)

        def run(x: Tensor) -> Tensor:
            y = sound(x)
            return torch.cat([y[:2], y[2:].flip(1)])

        return run

    def attempt(min_agreement: float) -> Artifact:
        rough = replace(TARGETS["onnx"], load=load, tolerance=1e3, min_agreement=min_agreement)
        monkeypatch.setitem(TARGETS, "rough", rough)
        return export(toy, tmp_path / "m.onnx", example=example, target="rough", metadata={}, dynamic_axes=())

    example = torch.zeros(3, 3, 16, 16)  # of which the last is answered wrongly
    parity = attempt(0.5).parity
    assert parity is not None
    assert 0.6 < parity.agreement < 0.9
    assert parity.min_agreement == 0.5
    with pytest.raises(ParityError, match="is not the model"):
        attempt(0.99)
    assert TARGETS["coreml"].min_agreement < TARGETS["coreml-float32"].min_agreement == 0.99


@pytest.mark.parametrize("dynamic_axes", [None, ()])
def test_an_example_that_does_not_fit_is_named(
    dynamic_axes: tuple[int, ...] | None, toy: nn.Module, tmp_path: Path
):
    example = torch.zeros(1, 4, 16, 16)
    with pytest.raises(
        ShapeError, match=r"Toy cannot take its example, \(1, 4, 16, 16\) .* to have 3 channels"
    ):
        export(toy, tmp_path / "model.onnx", example=example, metadata={}, dynamic_axes=dynamic_axes)
    assert list(tmp_path.iterdir()) == []


def test_limits_are_checked_before_the_work(toy: nn.Module, tmp_path: Path):
    with pytest.raises(RecipeError, match="tolerance is inf"):
        export(
            toy.train(),  # refused as well, but later
            tmp_path / "model.onnx",
            example=torch.zeros(1, 3, 16, 16),
            metadata={},
            tolerance=float("inf"),
        )


def test_what_is_not_installed_is_named(tmp_path: Path):
    done = subprocess.run(
        [sys.executable, str(HERE / "without_extras.py"), str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines() == list(answers())
    assert visible(tmp_path) == {"model.onnx"}


def answers() -> Iterator[str]:
    yield "loaded: []"
    yield "onnx exported"
    yield "onnx loaded"
    for target, extra, name, things in [
        ("openvino", "openvino", "OpenVINO", "OpenVINO models"),
        ("executorch", "executorch", "ExecuTorch", "ExecuTorch programs"),
        ("coreml", "coreml", "Core ML", "Core ML models"),
        ("coreml-float32", "coreml", "Core ML", "Core ML models"),
    ]:
        for purpose in (f"Exporting to {name}", f"Running {things}"):
            missing = "needs packages that are not installed."
            yield f"{target} {purpose} {missing}  hint: pip install 'regraft[{extra}]'"
