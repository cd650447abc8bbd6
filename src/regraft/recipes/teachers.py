"""Teachers out of files, and out of timm."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from regraft.errors import MissingExtra, RecipeError, WeightsError
from regraft.nn.device import best_device
from regraft.nn.reparam import fuse, is_fused
from regraft.recipes.classes import match_classes
from regraft.recipes.classifiers import load_classifier
from regraft.vision.modelfile import load_model
from regraft.vision.preprocess import Preprocess
from regraft.vision.teachers import Ensemble, Judge, Teacher, fingerprint_of_files, judge_of

TIMM = "timm:"


@final
class Loaded:
    """A model of a file, which crosses to another process as the file's name.

    Args:
        load: Makes the model of the file.
        file: Where it is.
    """

    def __init__(self, load: Callable[[Path], Callable[[Tensor], Any]], file: Path) -> None:
        self._load, self._file = load, file
        self._model = load(file)

    def __call__(self, image: Tensor) -> Any:
        """Whatever the model answers."""
        return self._model(image)

    def __reduce__(self) -> tuple[type["Loaded"], tuple[object, Path]]:
        return Loaded, (self._load, self._file)


def load_teachers(names: Sequence[str], classes: Sequence[str]) -> Teacher:
    """One teacher, or several as an ensemble that averages their probabilities.

    Args:
        names: Each a model file of Regraft, an ONNX file, a TorchScript file (`.pt`), or `timm:NAME` for a
            pretrained network of timm, `timm:NAME=WEIGHTS` for one with weights of your own. An ONNX file
            that Regraft did not write, and a TorchScript file, need `NAME.json` beside them: the
            preprocessing, as `Preprocess.describe` gives it, and `labels` where the classes are not just
            numbered.
        classes: Of the pictures. A teacher that knows more answers for these alone.

    Raises:
        WeightsError: A file cannot be read, or its classes are not known.
        SampleError: A teacher does not know a class.
        RecipeError: There is no teacher.
        ShapeError: A teacher does not answer as its labels say.
        MissingExtra: timm is not installed.
    """
    teachers = [_load(name, classes) for name in names]
    for teacher in teachers:
        size_px = teacher.preprocess.size_px
        # What does not work is better found out now, on a black picture, than in the first block.
        teacher(torch.zeros(1, teacher.preprocess.channels, size_px, size_px, dtype=torch.uint8))
    return teachers[0] if len(teachers) == 1 else Ensemble(teachers)


def _load(name: str, classes: Sequence[str]) -> Judge:
    if name.startswith(TIMM):
        return _from_timm(name.removeprefix(TIMM), classes)
    file = Path(name)
    if not file.is_file():
        raise WeightsError(f"There is no file {file}.", hint="timm:NAME names a network of timm.")
    if file.suffix in (".pt", ".pts", ".ts", ".torchscript"):
        return _from_torchscript(file, classes)
    if file.suffix == ".onnx":
        return _from_onnx(file, classes)
    model, card = load_model(file)
    model = model if is_fused(model) else fuse(model)
    judge = judge_of(model.to(best_device()).to(memory_format=torch.channels_last), card.preprocess)
    return _for_classes(judge, classes, card.labels, card.num_classes)


def _from_onnx(file: Path, classes: Sequence[str]) -> Judge:
    from regraft.deploy import onnx

    if not _beside(file).is_file():
        card = load_classifier(file).card
        labels, preprocess, num_classes = card.labels, card.preprocess, card.num_classes
    else:
        preprocess, labels = _described(file)
        num_classes = len(labels) or len(classes)
    # First loaded, because what is no ONNX file is said best there.
    loaded = Loaded(onnx.load, file)
    files = [file, *onnx.weight_files(file)]
    judge = Judge(loaded, preprocess, fingerprint_of_files(files, preprocess))
    return _for_classes(judge, classes, labels, num_classes)


def _from_torchscript(file: Path, classes: Sequence[str]) -> Judge:
    preprocess, labels = _described(file)
    loaded = Loaded(_load_torchscript, file)
    judge = Judge(loaded, preprocess, fingerprint_of_files([file], preprocess))
    return _for_classes(judge, classes, labels, len(labels) or len(classes))


def _load_torchscript(file: Path) -> Callable[[Tensor], Any]:
    device = best_device()
    with warnings.catch_warnings():
        # TorchScript is on its way out, as torch says each time; files of it are still about.
        warnings.simplefilter("ignore")
        try:
            model: nn.Module = torch.jit.load(file, map_location=device).eval()
        except RuntimeError as error:
            raise WeightsError(f"{file} is not a TorchScript file: {str(error).splitlines()[0]}") from error

    def answer(image: Tensor) -> Any:
        return model(image.to(device))

    return answer


def _from_timm(name: str, classes: Sequence[str]) -> Judge:
    try:
        import timm
        from timm.data.config import resolve_model_data_config
    except ImportError as error:
        raise MissingExtra.of("a teacher of timm's", "timm") from error
    name, _, weights = name.partition("=")
    if not timm.is_model(name):
        raise RecipeError(f"timm has no network {name!r}.", hint="timm.list_models() names them.")
    if weights and not Path(weights).is_file():
        raise WeightsError(f"There is no file {weights}.")
    num_classes = len(classes) if weights else None
    try:
        model = timm.create_model(
            name, pretrained=not weights, checkpoint_path=weights, num_classes=num_classes
        )
    except RuntimeError as error:  # torch's word for weights of other shapes
        raise WeightsError(
            f"{weights or 'timm'} has no weights for {name} with {len(classes)} classes: "
            f"{' '.join(str(error).split())[:200]}"
        ) from error
    config = resolve_model_data_config(model)
    preprocess = Preprocess(
        config["input_size"][-1],
        tuple(config["mean"]),
        tuple(config["std"]),
        config["interpolation"] if config["interpolation"] in ("bilinear", "bicubic") else "bilinear",
        config["crop_pct"],
        config["input_size"][0],
    )
    judge = judge_of(model.to(best_device()), preprocess)
    return _for_classes(judge, classes, (), len(classes))


def _for_classes(judge: Judge, classes: Sequence[str], labels: Sequence[str], num_classes: int) -> Judge:
    """The teacher's answers for the pictures' classes, in their order."""
    if not labels:
        # Without names the numbers must be the folder's.
        return Judge(judge.classifier, judge.preprocess, judge.fingerprint, num_logits=len(classes))
    columns = match_classes(classes, labels, num_classes).columns
    return Judge(
        judge.classifier,
        judge.preprocess,
        judge.fingerprint,
        labels=classes,
        columns=None if columns == tuple(range(num_classes)) else columns,
        num_logits=num_classes,
    )


def _described(file: Path) -> tuple[Preprocess, tuple[str, ...]]:
    beside = _beside(file)
    if not beside.is_file():
        raise WeightsError(
            f"{file} does not say how to use it, and there is no {beside}.",
            hint="Write the preprocessing there: json.dump(Preprocess(...).describe(), file).",
        )
    try:
        told = json.loads(beside.read_bytes())
        if not isinstance(told, dict):
            raise TypeError(f"it is a {type(told).__name__}, expected an object")
        return Preprocess.from_description(told), tuple(told.get("labels", ()))
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{beside} cannot be read: {error}.") from error


def _beside(file: Path) -> Path:
    return file.with_suffix(file.suffix + ".json")
