"""Teachers out of files that are not what they should be are refused by name, before anything is recorded."""

import json
from pathlib import Path

import onnx
import pytest
import torch
from onnx import TensorProto, helper
from torch import Tensor, nn

from regraft.errors import RegraftError, ShapeError, WeightsError
from regraft.recipes.teachers import load_teachers
from regraft.vision.preprocess import Preprocess
from regraft.vision.teachers import Ensemble, Judge

PREPROCESS = Preprocess(32, crop=1.0)
CLASSES = ("cat", "dog")

pytestmark = pytest.mark.filterwarnings("ignore::FutureWarning", "ignore::DeprecationWarning")


class Two(nn.Module):
    """Two logits from the mean of each picture."""

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean((1, 2, 3))
        return torch.stack([mean, -mean], dim=1)


class Several(nn.Module):
    """Two answers at once."""

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        mean = x.mean((1, 2, 3))
        return mean, -mean


class Flat(nn.Module):
    """A number a picture."""

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((1, 2, 3))


def script(folder: Path, network: nn.Module, labels: object = CLASSES) -> Path:
    file = folder / "teacher.pt"
    torch.jit.trace(network, torch.zeros(1, 3, 32, 32)).save(file)
    (folder / "teacher.pt.json").write_text(json.dumps(PREPROCESS.describe() | {"labels": labels}))
    return file


def graph(folder: Path, *, outputs: int = 1, external: bool = False) -> Path:
    """An ONNX file that multiplies the pixels of a 32-pixel picture by two columns."""
    weights = helper.make_tensor(
        "weights", TensorProto.FLOAT, (3072, 2), torch.randn(3072, 2).numpy().tobytes(), raw=True
    )
    nodes = [
        helper.make_node("Flatten", ["x"], ["flat"]),
        helper.make_node("MatMul", ["flat", "weights"], ["y0"]),
        helper.make_node("Identity", ["y0"], ["y1"]),
    ]
    made = helper.make_graph(
        nodes,
        "teacher",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ("b", 3, 32, 32))],
        [helper.make_tensor_value_info(f"y{n}", TensorProto.FLOAT, ("b", 2)) for n in range(outputs)],
        [weights],
    )
    file = folder / "teacher.onnx"
    (folder / "weights.bin").unlink(missing_ok=True)  # onnx appends to it
    model = helper.make_model(made, opset_imports=[helper.make_opsetid("", 18)], ir_version=10)
    onnx.save(model, file, save_as_external_data=external, location="weights.bin", size_threshold=0)
    (folder / "teacher.onnx.json").write_text(json.dumps(PREPROCESS.describe() | {"labels": CLASSES}))
    return file


def test_labels_must_be_as_many_as_logits(tmp_path: Path) -> None:
    assert load_teachers([str(script(tmp_path, Two()))], CLASSES).labels == CLASSES
    background_first = script(tmp_path, Two(), ["nothing", *CLASSES])
    with pytest.raises(ShapeError, match="answers with 2 logits, but names 3 classes"):
        load_teachers([str(background_first)], CLASSES)
    with pytest.raises(ShapeError, match=r"2 logits and does not name its classes, .* have 3"):
        load_teachers([str(script(tmp_path, Two(), []))], ("a", "b", "c"))


def test_answers_must_be_rows_of_logits(tmp_path: Path) -> None:
    with pytest.raises(ShapeError, match="a tuple"):
        load_teachers([str(script(tmp_path, Several()))], CLASSES)
    with pytest.raises(ShapeError, match=r"shape \(1,\)"):
        load_teachers([str(script(tmp_path, Flat()))], CLASSES)
    with pytest.raises(WeightsError, match="1 inputs and 2 outputs"):
        load_teachers([str(graph(tmp_path, outputs=2))], CLASSES)


def test_classes_called_by_number_are_logits(tmp_path: Path) -> None:
    """Folders sort as 0, 1, 10, 11, 2; logits do not."""

    class Third(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x.mean((1, 2, 3))[:, None] * 0 + torch.eye(12)[2]

    folders = tuple(sorted(map(str, range(12))))
    told = load_teachers([str(script(tmp_path, Third(), []))], folders)
    (chosen,) = told(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).argmax(1).tolist()
    assert folders[chosen] == "2"
    some = load_teachers([str(script(tmp_path, Third(), []))], ("10", "2"))
    assert some(torch.zeros(1, 3, 32, 32, dtype=torch.uint8)).argmax(1).tolist() == [1]


def test_a_description_must_fit_the_model(tmp_path: Path) -> None:
    file = script(tmp_path, nn.Sequential(nn.Conv2d(3, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()))
    assert load_teachers([str(file)], CLASSES).labels == CLASSES
    grey = Preprocess(32, mean=(0.5,), std=(0.5,), crop=1.0, channels=1)
    (tmp_path / "teacher.pt.json").write_text(json.dumps(grey.describe() | {"labels": CLASSES}))
    with pytest.raises(WeightsError, match=r"cannot be asked about a picture of 1 x 32 x 32"):
        load_teachers([str(file)], CLASSES)


@pytest.mark.parametrize("told", ["[1]", "7", "{", '{"labels": 3}', '{"labels": "ab"}', '{"labels": [0, 1]}'])
def test_descriptions_must_be_descriptions(tmp_path: Path, told: str) -> None:
    file = script(tmp_path, Two())
    (tmp_path / "teacher.pt.json").write_text(told)
    with pytest.raises(RegraftError, match=r"teacher\.pt\.json|lacks|missing"):
        load_teachers([str(file)], CLASSES)


def test_junk_is_no_teacher(tmp_path: Path) -> None:
    file = graph(tmp_path)
    file.write_bytes(b"junk")
    with pytest.raises(WeightsError, match="ONNX Runtime cannot run"):
        load_teachers([str(file)], CLASSES)
    script(tmp_path, Two()).write_bytes(b"junk")
    with pytest.raises(WeightsError, match="not a TorchScript file"):
        load_teachers([str(tmp_path / "teacher.pt")], CLASSES)


def test_weights_beside_a_graph_belong_to_its_fingerprint(tmp_path: Path) -> None:
    def made(seed: int) -> str:
        torch.manual_seed(seed)
        return load_teachers([str(graph(tmp_path, external=True))], CLASSES).fingerprint

    first = made(0)
    assert (tmp_path / "weights.bin").stat().st_size == 4 * 2 * 3072
    assert made(1) != first == made(0)


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    timm = pytest.importorskip("timm")
    torch.save(timm.create_model("test_vit", num_classes=3).state_dict(), tmp_path / "three.pth")
    with pytest.raises(WeightsError, match="no weights for test_vit with 2 classes"):
        load_teachers([f"timm:test_vit={tmp_path / 'three.pth'}"], CLASSES)


def test_networks_of_imagenet_know_its_classes_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    timm = pytest.importorskip("timm")
    create = timm.create_model

    def untrained(name: str, pretrained: bool, checkpoint_path: str, num_classes: int | None) -> nn.Module:
        assert pretrained
        torch.manual_seed(0)
        return create(name)

    monkeypatch.setattr(timm, "create_model", untrained)
    pixels = torch.randint(0, 256, (2, 3, 160, 160), dtype=torch.uint8)
    told = load_teachers(["timm:test_vit"], ("n01443537", "n01440764"))  # the second class, and the first
    by_number = load_teachers(["timm:test_vit"], ("1", "0"))
    assert told.labels == ("n01443537", "n01440764")
    torch.testing.assert_close(told(pixels), by_number(pixels))
    torch.testing.assert_close(told(pixels).exp().sum(1), torch.ones(2))


def test_an_ensemble_knows_as_many_classes_throughout() -> None:
    def judge(count: int) -> Judge:
        def answer(x: Tensor) -> Tensor:
            return torch.zeros(len(x), count)

        return Judge(answer, PREPROCESS, str(count))

    with pytest.raises(ShapeError, match=r"\[2, 3\] classes"):
        Ensemble([judge(2), judge(3)])(torch.zeros(1, 3, 32, 32, dtype=torch.uint8))
