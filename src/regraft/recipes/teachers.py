"""Teachers out of files, and out of timm."""

import json
import warnings
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, final

import torch
from torch import Tensor, nn

from regraft.errors import MissingExtra, RecipeError, RegraftError, ShapeError, WeightsError
from regraft.nn.device import best_device
from regraft.nn.reparam import fuse, is_fused
from regraft.recipes.classes import are_numbers, match_classes
from regraft.recipes.classifiers import load_classifier
from regraft.vision.modelfile import load_model
from regraft.vision.preprocess import Preprocess
from regraft.vision.teachers import Ensemble, Judge, Teacher, fingerprint_of_files, judge_of

TIMM = "timm:"
Named = tuple[Judge, tuple[str, ...]]
"""A teacher of all its classes, and their names if it has them."""


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
            preprocessing, as `Preprocess.describe` gives it, and `labels` where the classes are named.
        classes: Of the pictures. A teacher that knows more answers for these alone. One that does not name
            its classes knows them by number if the pictures' classes are numbers, else in their order.

    Raises:
        WeightsError: A file cannot be read, or its classes are not known.
        SampleError: A teacher does not know a class.
        RecipeError: There is no teacher.
        ShapeError: A teacher does not answer as its labels say.
        MissingExtra: timm is not installed.
    """
    teachers = [_for_classes(name, *_load(name, classes), classes) for name in names]
    return teachers[0] if len(teachers) == 1 else Ensemble(teachers)


def _load(name: str, classes: Sequence[str]) -> Named:
    if name.startswith(TIMM):
        return _from_timm(name.removeprefix(TIMM), classes)
    file = Path(name)
    if not file.is_file():
        raise WeightsError(f"There is no file {file}.", hint="timm:NAME names a network of timm.")
    if file.suffix in (".pt", ".pts", ".ts", ".torchscript"):
        return _from_torchscript(file)
    if file.suffix == ".onnx":
        return _from_onnx(file)
    model, card = load_model(file)
    model = model if is_fused(model) else fuse(model)
    judge = judge_of(model.to(best_device()).to(memory_format=torch.channels_last), card.preprocess)
    return judge, card.labels


def _from_onnx(file: Path) -> Named:
    from regraft.deploy import onnx

    if _beside(file).is_file():
        preprocess, labels = _described(file)
    else:
        card = load_classifier(file).card
        preprocess, labels = card.preprocess, card.labels
    # First loaded, because what is no ONNX file is said best there.
    loaded = Loaded(onnx.load, file)
    files = [file, *onnx.weight_files(file)]
    return Judge(loaded, preprocess, fingerprint_of_files(files, preprocess)), labels


def _from_torchscript(file: Path) -> Named:
    preprocess, labels = _described(file)
    loaded = Loaded(_load_torchscript, file)
    return Judge(loaded, preprocess, fingerprint_of_files([file], preprocess)), labels


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


def _from_timm(name: str, classes: Sequence[str]) -> Named:
    try:
        import timm
        from timm.data.config import resolve_model_data_config
        from timm.data.imagenet_info import ImageNetInfo, infer_imagenet_subset
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
    except Exception as error:  # of torch, of the file's format, of the network: they have no other parent
        of = f"with {num_classes} classes" if num_classes else "as it was pretrained"
        raise WeightsError(
            f"{weights or 'timm'} has no weights for {name} {of}: {_in_short(error)}"
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
    subset = None if weights else infer_imagenet_subset(model)
    labels = tuple(ImageNetInfo(subset).label_names()) if subset else ()
    return judge_of(model.to(best_device()), preprocess), labels


def _for_classes(name: str, judge: Judge, labels: Sequence[str], classes: Sequence[str]) -> Judge:
    """The teacher's answers for the pictures' classes, in their order."""
    num_logits = _num_logits(name, judge)
    if labels and len(labels) != num_logits:
        raise ShapeError(f"{name} answers with {num_logits} logits, but names {len(labels)} classes.")
    if not labels and not are_numbers(classes, num_logits):
        # Without names and numbers, the order must be the folder's.
        if num_logits != len(classes):
            raise ShapeError(
                f"{name} answers with {num_logits} logits and does not name its classes, but the pictures "
                f"have {len(classes)}.",
                hint="Name its labels, or name the pictures' classes by the numbers of its logits.",
            )
        return Judge(judge.classifier, judge.preprocess, judge.fingerprint, num_logits=num_logits)
    columns = match_classes(classes, labels, num_logits).columns
    return Judge(
        judge.classifier,
        judge.preprocess,
        judge.fingerprint,
        labels=classes,
        columns=None if columns == tuple(range(num_logits)) else columns,
        num_logits=num_logits,
    )


def _num_logits(name: str, judge: Judge) -> int:
    """Asked about a black picture: what does not work is better found out now than in the first block."""
    size_px = judge.preprocess.size_px
    black = torch.zeros(1, judge.preprocess.channels, size_px, size_px, dtype=torch.uint8)
    try:
        return judge(black).shape[1]
    except RegraftError:
        raise
    except Exception as error:  # whatever the model's runtime raises
        raise WeightsError(
            f"{name} cannot be asked about a picture of {judge.preprocess.channels} x {size_px} x {size_px}: "
            f"{_in_short(error)}",
            hint="Does its preprocessing fit it?",
        ) from error


def _in_short(error: Exception) -> str:
    return " ".join(str(error).split())[:200]


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
        labels = told.get("labels", [])
        if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
            raise TypeError(f"its labels are {labels!r:.60}, expected a list of names")
        return Preprocess.from_description(told), tuple(labels)
    except (ValueError, TypeError, AttributeError) as error:
        raise WeightsError(f"{beside} cannot be read: {error}.") from error


def _beside(file: Path) -> Path:
    return file.with_suffix(file.suffix + ".json")
