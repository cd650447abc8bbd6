"""Weights from and to the files that others publish for MobileOne and FastViT."""

import copy
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TypeVar, cast

import torch
from torch import Tensor, nn

from regraft.errors import ArchitectureError, WeightsError
from regraft.nn.reparam import fuse
from regraft.vision.backbone import Backbone
from regraft.vision.fastvit import Attention, Branch, ConvFFN, NormedAttention, Residual, ScaledResidual
from regraft.vision.weight_file import WeightFile, read_weights
from regraft.vision.weight_layouts import Kind, evidence, naming, recognise

Model = TypeVar("Model", bound=nn.Module)
NUM_STAGES = 4
"""Stages of every published network; those of our own with fewer have no counterpart elsewhere."""
NUM_LISTED = 8
"""Names that an error lists before it only counts."""
OTHER_FORM_HINTS = {
    "train": "Load, then fuse: regraft.fuse(load_weights(create_model(name), path).eval()).",
    "fused": "It has no branches; fuse the model first: load_weights(regraft.fuse(model.eval()), path).",
}
"""What to do with a file of each form where the model has the other."""


def load_weights(model: Model, path: str | Path) -> Model:
    """Fill a MobileOne or FastViT with the weights in a file, and return it.

    The file may come from Apple's code, from timm or from Regraft, with branches or fused; which, is
    told from the names inside. Published fused FastViTs are folded only in part: they keep the norms
    before attention and in the feed-forward layers, and the layer scales. These are folded here, in
    float64. The model keeps its dtype, device and mode; on an error it is as it was.

    Args:
        model: Made by `create_model`, in training form for a file with branches, and fused for a
            fused file.
        path: A local `.safetensors`, `.pth`, `.pt` or `.pth.tar` file. Code in it is never run.

    Raises:
        WeightsError: An unreadable or unknown file, one of the other form or family, or names and
            shapes that do not fit; the message lists them.
    """
    file = read_weights(Path(path))
    kind = _kind_of(file)
    _check_kind(file, kind, _own_kind(model))
    if kind.form == "fused" and kind.origin != "Regraft":
        reopened = _reopen(model)
        reopened.load_state_dict(_matched(reopened, file, kind))
        model.load_state_dict(fuse(reopened).state_dict())
    else:
        model.load_state_dict(_matched(model, file, kind))
    return model


def to_timm(model: Backbone) -> dict[str, Tensor]:
    """The state dict that timm's network of the same name loads strictly: copies, in training form.

    To publish a fused network, publish this one; `timm.utils.reparameterize_model` fuses it there. A
    fused model of ours is refused: timm builds no fused MobileOne, and its fused FastViT has no bias
    for queries, keys and values, where ours keeps what the norm before attention became.

    Raises:
        WeightsError: `model` is fused, or neither a MobileOne nor a FastViT.
        ArchitectureError: A network of our own that timm does not have.
    """
    kind = _own_kind(model)
    if kind.form == "fused":
        raise WeightsError(
            f"This {kind.family} is fused; timm's layout needs the branches.",
            hint="Keep the training form: to_timm(model) before regraft.fuse(model).",
        )
    if len(model.stages) != NUM_STAGES:
        raise ArchitectureError(
            f"timm has no {kind.family} of {len(model.stages)} stages, only of {NUM_STAGES}."
        )
    entries = cast(dict[str, Tensor], model.state_dict())
    name = naming(entries, "timm")
    return {
        name(key): tensor.detach().clone(memory_format=torch.contiguous_format)
        for key, tensor in entries.items()
    }


def _kind_of(file: WeightFile) -> Kind:
    kind = recognise(file.entries)
    if kind is None:
        raise WeightsError(
            f"{file.path} is no MobileOne or FastViT of Apple, timm or Regraft; its first names are "
            f"{_listed(list(file.entries)[:NUM_LISTED])}.",
            hint="If they carry a prefix of the training script, save the state dict without it.",
        )
    return kind


def _own_kind(model: nn.Module) -> Kind:
    kind = recognise(model.state_dict())
    if kind is None or kind.origin != "Regraft":
        raise WeightsError(
            f"The model ({type(model).__name__}) is neither a MobileOne nor a FastViT of Regraft.",
            hint="Make it with regraft.create_model.",
        )
    return kind


def _check_kind(file: WeightFile, kind: Kind, own: Kind) -> None:
    described = f"{_described(file, kind)}, recognised by {evidence(kind, file.entries)!r},"
    if kind.family != own.family:
        raise WeightsError(
            f"{described} does not fit a {own.family}.",
            hint=f"Create the {kind.family} that it holds; regraft.list_models() lists them.",
        )
    if kind.form != own.form:
        raise WeightsError(
            f"{described} does not fit a model in {own.form} form.", hint=OTHER_FORM_HINTS[kind.form]
        )


def _described(file: WeightFile, kind: Kind) -> str:
    return f"{file.path} ({', '.join([str(kind), *file.unwrapped])})"


def _matched(model: nn.Module, file: WeightFile, kind: Kind) -> dict[str, Tensor]:
    """The file's tensors under the model's names, after checking that each fits."""
    own = cast(dict[str, Tensor], model.state_dict())
    name = naming(own, kind.origin)
    published = {key: name(key) for key in own}
    missing = [theirs for theirs in published.values() if theirs not in file.entries]
    unexpected = sorted(file.entries.keys() - set(published.values()))
    unfit = [
        f"{theirs} ({_shape(file.entries[theirs])}, not {_shape(own[key])})"
        for key, theirs in published.items()
        if theirs in file.entries and _shape(file.entries[theirs]) != _shape(own[key])
    ]
    faults = {"missing": missing, "unexpected": unexpected, "of wrong shape or type": unfit}
    if any(faults.values()):
        listed = "; ".join(f"{fault} {_listed(names)}" for fault, names in faults.items() if names)
        raise WeightsError(
            f"{_described(file, kind)} does not fit the model: {listed}.",
            hint=_advice(own, file.entries, name("head.weight")),
        )
    return {key: file.entries[theirs] for key, theirs in published.items()}


def _shape(tensor: Tensor) -> str:
    return f"{'float' if tensor.is_floating_point() else 'integer'} {tuple(tensor.shape)}"


def _listed(names: Iterable[str]) -> str:
    names = list(names)
    rest = f" and {len(names) - NUM_LISTED} more" if len(names) > NUM_LISTED else ""
    return ", ".join(names[:NUM_LISTED]) + rest


def _advice(own: Mapping[str, Tensor], theirs: Mapping[str, Tensor], classifier: str) -> str:
    in_model, in_file = _num_classes(own, "head.weight"), _num_classes(theirs, classifier)
    if in_model == in_file:
        return "Create the model with the name and in_channels that the file was made for."
    return (
        f"The file has {in_file} classes, the model {in_model}: create it with num_classes={in_file}, "
        "load, then replace model.head."
    )


def _num_classes(entries: Mapping[str, Tensor], classifier: str) -> int:
    return len(entries[classifier]) if classifier in entries else 0


def _reopen(model: Model) -> Model:
    """A fused model's copy, with norms and layer scales where published fused networks keep them.

    Its weights are not set. It is in float64, so that what is folded in the end is rounded once.
    """
    tree = copy.deepcopy(model).to("meta")
    for name, part in list(tree.named_modules()):
        if isinstance(part, Residual):
            with torch.device("meta"):
                tree.set_submodule(name, _reopened(cast(Branch, part.branch)))
    return tree.double().to_empty(device="cpu").eval()


def _reopened(branch: Branch) -> ScaledResidual:
    width = len(branch.last.weight)
    if isinstance(branch, Attention):
        inner: Branch = NormedAttention(width)
    else:
        inner = ConvFFN(width, cast(ConvFFN, branch).expand.out_channels // width)
    return ScaledResidual(inner, width, layer_scale=1.0, drop_path=0.0)
