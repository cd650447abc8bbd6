"""Weights of timm's and Apple's layouts, checked against timm by its outputs.

Apple's code is not at hand. Its names are written out here a second time, from the published layout and
apart from the importer's tables, and timm's own importer of Apple's FastViT files bears witness to them.
"""

import copy
import os
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import save_file
from timm.models.fastvit import checkpoint_filter_fn
from timm.utils import reparameterize_model
from torch import Tensor, nn

from regraft.errors import ArchitectureError, RegraftError, WeightsError
from regraft.nn.reparam import fuse
from regraft.vision.models import create_model
from regraft.vision.weight_layouts import naming
from regraft.vision.weights import load_weights, to_timm

State = dict[str, Tensor]

SMALL = ["mobileone_s0", "mobileone_s1", "mobileone_s2", "mobileone_s3", "mobileone_s4"]
SMALL += ["fastvit_t8", "fastvit_t12", "fastvit_s12", "fastvit_sa12"]
LARGE = ["fastvit_sa24", "fastvit_sa36", "fastvit_ma36"]
EXACT = 1e-12
"""In float64 both sides are the same algebra: 1e-14 is seen, after some forty layers."""
CLOSE = 1e-5
"""In float32 they add in another order: between 0 and 1.4e-6 is seen, over several draws of the weights."""


@dataclass(frozen=True)
class Reference:
    """A network of timm with random weights, in both forms, and what it answers."""

    name: str
    models: dict[str, nn.Module]
    pictures: Tensor
    exact: dict[str, Tensor]
    """Logits of each form in float64."""
    close: dict[str, Tensor]
    """The same in float32."""

    def state(self, form: str) -> State:
        return dict(self.models[form].state_dict())


def make_reference(name: str, **options: int) -> Reference:
    torch.manual_seed(0)
    model = timm.create_model(name, **options)
    pictures = torch.randn(8, options.get("in_chans", 3), 64, 64)
    randomise(model, pictures)
    models = {"train": model, "fused": reparameterize_model(model)}
    pictures = pictures[:2].double()
    close = {form: answers(member, pictures) for form, member in models.items()}
    exact = {form: answers(member.double(), pictures) for form, member in models.items()}
    for member in models.values():
        member.float()  # without loss: these weights were float32
    return Reference(name, models, pictures, exact, close)


def answers(model: nn.Module, pictures: Tensor) -> Tensor:
    with torch.inference_mode():
        return model.eval()(pictures.to(next(model.parameters()).dtype)).double()


def relative_difference(logits: Tensor, expected: Tensor) -> float:
    """Largest difference, relative to the largest logit; NaN if there is any."""
    return float((logits - expected).abs().max() / expected.abs().max())


@torch.no_grad()
def randomise(model: nn.Module, pictures: Tensor) -> None:
    """Draw every tensor, with norm statistics near the true ones so that no signal dies on the way."""
    for name, parameter in model.named_parameters():
        if name.endswith(("gamma", ".scale")):  # large enough that every residual branch shows in the output
            parameter.uniform_(0.1, 0.5)
        elif name.endswith("bias"):
            parameter.normal_(0.5, 0.2)  # about zero, forty norms and ReLUs in a row multiply rounding by 1e5
        elif parameter.ndim == 1:
            parameter.uniform_(0.5, 1.5)
    norms = [part for part in model.modules() if isinstance(part, nn.BatchNorm2d)]
    for norm in norms:
        norm.momentum = 1.0
    model.train()(pictures)
    for norm in norms:
        assert norm.running_mean is not None
        assert norm.running_var is not None
        norm.running_mean.add_(0.1 * norm.running_var.sqrt() * torch.randn_like(norm.running_mean))
        # A channel that ReLU silenced has no variance, and dividing by it would only amplify rounding.
        norm.running_var.clamp_(min=0.1 * float(norm.running_var.mean()))
        norm.running_var.mul_(torch.empty_like(norm.running_var).uniform_(0.7, 1.4))
    model.eval()


@pytest.fixture(scope="module", params=[*SMALL, *LARGE])
def reference(request: pytest.FixtureRequest) -> Reference:
    return make_reference(request.param)


@pytest.fixture(scope="module")
def small() -> dict[str, Reference]:
    return {name: make_reference(name) for name in ("mobileone_s0", "fastvit_t8", "fastvit_sa12")}


def untrained(name: str, form: str, **options: int) -> nn.Module:
    """A network whose every weight is NaN, so that one left as it was shows."""
    with torch.device("meta"):
        model = create_model(name, **options).eval()
        model = fuse(model) if form == "fused" else model
    model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.fill_(torch.nan if tensor.is_floating_point() else 0)
    return model


def difference(model: nn.Module, reference: Reference, form: str) -> float:
    """How far the answers are from timm's of the same precision."""
    expected = reference.exact if next(model.parameters()).dtype == torch.float64 else reference.close
    return relative_difference(answers(model, reference.pictures), expected[form])


APPLE_WORDS = {
    "conv_kxk": "rbr_conv",
    "conv_scale": "rbr_scale",
    "identity": "rbr_skip",
    "se.fc1": "se.reduce",
    "se.fc2": "se.expand",
    "attn.fc1": "se.reduce",
    "attn.fc2": "se.expand",
    "large_conv": "lkb_origin",
    "downsample.proj.0.reparam_conv": "downsample.proj.0.lkb_reparam",
    "mlp.": "convffn.",
    ".gamma": "",
    "final_conv": "conv_exp",
}


def to_apple(state: State, name: str) -> State:
    """Rename timm's entries to those of Apple's code."""
    return {_apple_key(key, name): tensor for key, tensor in state.items()}


def _apple_key(key: str, name: str) -> str:
    for theirs, apples in APPLE_WORDS.items():
        key = key.replace(theirs, apples)
    if name.startswith("mobileone"):
        key = key.replace("head.fc", "linear").replace("stem", "stage0")
        return re.sub(r"^stages\.(\d)", lambda found: f"stage{int(found[1]) + 1}", key)
    key = key.replace("head.fc", "head").replace("stem", "patch_embed")
    last = 7 if "sa" in name or "ma36" in name else 6
    key = key.replace("stages.3.blocks", f"network.{last}").replace("stages.3.downsample", "network.5")
    key = key.replace("stages.3.pos_emb.pos_enc", "network.6.pe").replace("stages.3.pos_emb", "network.6")
    key = key.replace("stages.2.blocks", "network.4").replace("stages.2.downsample", "network.3")
    key = key.replace("stages.1.blocks", "network.2").replace("stages.1.downsample", "network.1")
    return key.replace("stages.0.blocks", "network.0")


def write_timm(state: State, name: str, folder: Path) -> Path:
    save_file(state, folder / "timm.safetensors")
    return folder / "timm.safetensors"


def write_apple(state: State, name: str, folder: Path) -> Path:
    entries = to_apple(state, name)
    nested = {"state_dict": entries} if name.startswith("fastvit") else entries
    torch.save(nested, folder / "apple.pth.tar")
    return folder / "apple.pth.tar"


def check_answers(reference: Reference, form: str, path: Path) -> None:
    exact = untrained(reference.name, form).double()
    close = copy.deepcopy(exact).float()
    assert load_weights(exact, path) is exact
    assert difference(exact, reference, form) < EXACT
    assert difference(load_weights(close, path), reference, form) < CLOSE


@pytest.mark.parametrize("form", ["train", "fused"])
def test_network_from_timm_answers_as_timms(reference: Reference, form: str, tmp_path: Path) -> None:
    check_answers(reference, form, write_timm(reference.state(form), reference.name, tmp_path))


@pytest.mark.parametrize("form", ["train", "fused"])
@pytest.mark.parametrize("reference", SMALL, indirect=True)
def test_network_from_apple_answers_as_timms(reference: Reference, form: str, tmp_path: Path) -> None:
    check_answers(reference, form, write_apple(reference.state(form), reference.name, tmp_path))


@pytest.mark.parametrize("name", LARGE)
def test_every_name_in_large_networks_of_apple(name: str) -> None:
    with torch.device("meta"):
        ours, theirs = create_model(name).state_dict(), timm.create_model(name).state_dict()
    assert set(map(naming(ours, "Apple"), ours)) == to_apple(dict(theirs), name).keys()


def test_training_form_goes_out_as_it_came_in(reference: Reference, tmp_path: Path) -> None:
    state = reference.state("train")
    model = load_weights(create_model(reference.name), write_timm(state, reference.name, tmp_path))
    out = to_timm(model)
    assert out.keys() == state.keys()
    assert all(torch.equal(out[key], tensor) for key, tensor in state.items())


CHANGED = {
    "mobileone_s0": {
        "train": "stages.1.7.conv_kxk.3.bn.running_mean",
        "fused": "stages.1.7.reparam_conv.bias",
    },
    "fastvit_t8": {
        "train": "stages.1.blocks.1.layer_scale.gamma",
        "fused": "stages.1.blocks.1.mlp.conv.bn.running_var",
    },
    "fastvit_sa12": {
        "train": "stages.3.blocks.1.norm.bias",
        "fused": "stages.3.blocks.1.layer_scale_1.gamma",
    },
}


@pytest.mark.parametrize("form", ["train", "fused"])
@pytest.mark.parametrize("name", CHANGED)
def test_one_changed_tensor_shows(small: dict[str, Reference], name: str, form: str, tmp_path: Path) -> None:
    state = small[name].state(form)
    changed = CHANGED[name][form]
    state[changed] = state[changed] * 1.5
    model = load_weights(untrained(name, form), write_timm(state, name, tmp_path))
    assert difference(model, small[name], form) > 10 * CLOSE


@pytest.mark.parametrize("name", [name for name in [*SMALL, *LARGE] if name.startswith("fastvit")])
def test_timm_reads_the_same_apple_names(name: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
    state = model.state_dict()
    read = checkpoint_filter_fn({"state_dict": to_apple(state, name)}, model)
    assert {key: tensor.shape for key, tensor in read.items()} == {key: t.shape for key, t in state.items()}


@pytest.mark.parametrize(
    ("name", "form", "num_entries", "some"),
    [
        ("mobileone_s4", "train", 610, "stage0.rbr_scale.bn.bias stage3.19.se.reduce.weight linear.weight"),
        ("mobileone_s4", "train", 610, "stage2.3.rbr_skip.running_var stage4.1.rbr_conv.0.conv.weight"),
        ("mobileone_s4", "fused", 136, "stage1.0.reparam_conv.weight stage4.1.se.expand.bias linear.bias"),
        ("fastvit_sa12", "train", 504, "patch_embed.2.rbr_skip.bias network.5.proj.0.lkb_origin.bn.weight"),
        ("fastvit_sa12", "train", 504, "network.6.pe.weight network.7.1.layer_scale_2 head.bias"),
        ("fastvit_sa12", "train", 504, "network.4.5.token_mixer.layer_scale conv_exp.se.reduce.weight"),
        ("fastvit_sa12", "fused", 198, "network.1.proj.0.lkb_reparam.bias network.6.reparam_conv.weight"),
        ("fastvit_sa12", "fused", 198, "network.0.0.token_mixer.reparam_conv.bias network.7.0.norm.weight"),
    ],
)
def test_apple_names_here_are_the_published_ones(name: str, form: str, num_entries: int, some: str) -> None:
    with torch.device("meta"):
        model = timm.create_model(name)
        if form == "fused":
            model = reparameterize_model(model)
    names = to_apple(dict(model.state_dict()), name).keys()
    assert len(names) == num_entries
    assert set(some.split()) <= names


@pytest.mark.parametrize("name", ["mobileone_s0", "fastvit_t8", "fastvit_sa12"])
def test_ours_goes_to_timm(name: str) -> None:
    torch.manual_seed(1)
    ours = create_model(name, num_classes=7, in_channels=5).eval()
    theirs = timm.create_model(name, num_classes=7, in_chans=5).eval()
    randomise(ours, torch.randn(8, 5, 64, 64))
    theirs.load_state_dict(to_timm(ours), strict=True)
    pictures = torch.randn(2, 5, 64, 64)
    expected = answers(ours.double(), pictures)
    assert relative_difference(answers(theirs.double(), pictures), expected) < EXACT


def test_copies_for_timm_can_be_saved_and_do_not_follow_the_model(tmp_path: Path) -> None:
    model = create_model("fastvit_t8").to(memory_format=torch.channels_last)
    published = to_timm(model)
    save_file(published, tmp_path / "t8.safetensors")
    nn.init.zeros_(model.get_parameter("head.weight"))
    assert published["head.fc.weight"].abs().max() > 0


def test_network_without_classifier_goes_to_timm() -> None:
    theirs = timm.create_model("mobileone_s1", num_classes=0)
    theirs.load_state_dict(to_timm(create_model("mobileone_s1", num_classes=0)), strict=True)


@pytest.mark.parametrize("form", ["train", "fused"])
def test_other_channels_and_classes(form: str, tmp_path: Path) -> None:
    reference = make_reference("fastvit_sa12", num_classes=7, in_chans=5)
    path = write_apple(reference.state(form), "fastvit_sa12", tmp_path)
    model = load_weights(untrained("fastvit_sa12", form, num_classes=7, in_channels=5), path)
    assert difference(model, reference, form) < CLOSE


def test_fused_networks_that_timm_builds_directly_have_the_same_names(small: dict[str, Reference]) -> None:
    with torch.device("meta"):
        direct = timm.create_model("fastvit_sa12", inference_mode=True)
    assert direct.state_dict().keys() == small["fastvit_sa12"].state("fused").keys()


def test_no_norm_or_scale_survives_a_fused_import(small: dict[str, Reference], tmp_path: Path) -> None:
    path = write_timm(small["fastvit_sa12"].state("fused"), "fastvit_sa12", tmp_path)
    model = load_weights(untrained("fastvit_sa12", "fused"), path)
    assert not any(isinstance(part, nn.BatchNorm2d) for part in model.modules())
    assert not [key for key in model.state_dict() if "scale" in key or "norm" in key]


@pytest.mark.parametrize("form", ["train", "fused"])
@pytest.mark.parametrize("name", ["mobileone_mini", "fastvit_mini"])
def test_our_own_files(name: str, form: str, tmp_path: Path) -> None:
    saved = fuse(create_model(name).eval()) if form == "fused" else create_model(name)
    save_file(saved.state_dict(), tmp_path / "ours.safetensors")
    loaded = load_weights(untrained(name, form), tmp_path / "ours.safetensors")
    assert all(torch.equal(tensor, saved.state_dict()[key]) for key, tensor in loaded.state_dict().items())


def test_dilated_network_takes_published_weights(small: dict[str, Reference], tmp_path: Path) -> None:
    path = write_timm(small["fastvit_sa12"].state("fused"), "fastvit_sa12", tmp_path)
    dilated = load_weights(untrained("fastvit_sa12", "fused", output_stride=16), path)
    strided = load_weights(untrained("fastvit_sa12", "fused"), path)
    assert all(torch.equal(dilated.state_dict()[key], t) for key, t in strided.state_dict().items())


@pytest.mark.parametrize("form", ["train", "fused"])
def test_model_keeps_dtype_mode_and_frozen_parameters(
    small: dict[str, Reference], form: str, tmp_path: Path
) -> None:
    model = untrained("fastvit_sa12", form).to(torch.bfloat16).train()
    frozen = model.get_parameter("head.weight").requires_grad_(False)
    load_weights(model, write_timm(small["fastvit_sa12"].state(form), "fastvit_sa12", tmp_path))
    assert model.training
    assert model.get_parameter("head.weight") is frozen
    assert [name for name, value in model.named_parameters() if not value.requires_grad] == ["head.weight"]
    assert {tensor.dtype for tensor in model.state_dict().values()} <= {torch.bfloat16, torch.int64}


def test_prefix_of_parallel_training_is_taken_off(small: dict[str, Reference], tmp_path: Path) -> None:
    entries = {f"module.{key}": tensor for key, tensor in small["fastvit_t8"].state("train").items()}
    torch.save({"epoch": 3, "state_dict": entries}, tmp_path / "run.pth")
    model = load_weights(create_model("fastvit_t8"), tmp_path / "run.pth")
    assert difference(model, small["fastvit_t8"], "train") < CLOSE
    with pytest.raises(WeightsError, match=r"under 'state_dict', names without 'module\.'"):
        load_weights(create_model("fastvit_t12"), tmp_path / "run.pth")


def lose_one(state: State) -> str:
    del state["stages.1.blocks.0.mlp.fc1.bias"]
    return "missing stages.1.blocks.0.mlp.fc1.bias"


def lose_the_mark(state: State) -> str:
    first = next(iter(state))
    del state[first]
    return f"missing {first}"


def add_one(state: State) -> str:
    state["norm0.weight"] = torch.ones(48)  # what a network made for detection has besides
    return "unexpected norm0.weight"


def widen_one(state: State) -> str:
    state["stages.1.blocks.0.mlp.fc1.bias"] = torch.zeros(3)
    return "of wrong shape or type stages.1.blocks.0.mlp.fc1.bias (float (3,), not float (288,))"


def quantise_one(state: State) -> str:
    state["head.fc.bias"] = state["head.fc.bias"].to(torch.int8)
    return "of wrong shape or type head.fc.bias (integer (1000,), not float (1000,))"


def rename_many(state: State) -> str:
    for key in [key for key in state if key.startswith("stages.2.")]:
        state[f"extra.{key}"] = state.pop(key)
    return "more; unexpected extra.stages.2."


@pytest.mark.parametrize("form", ["train", "fused"])
@pytest.mark.parametrize("spoil", [lose_one, lose_the_mark, add_one, widen_one, quantise_one, rename_many])
def test_misfits_are_named_and_nothing_is_loaded(
    small: dict[str, Reference], spoil: Callable[[State], str], form: str, tmp_path: Path
) -> None:
    state = small["fastvit_t8"].state(form)
    said = spoil(state)
    model = untrained("fastvit_t8", form)
    with pytest.raises(WeightsError, match=re.escape(said)):
        load_weights(model, write_timm(state, "fastvit_t8", tmp_path))
    assert all(tensor.isnan().all() for tensor in model.parameters())


def test_fused_file_with_a_remainder_of_training(small: dict[str, Reference], tmp_path: Path) -> None:
    remainder = "stages.0.0.conv_scale.bn.bias"
    state = small["mobileone_s0"].state("fused") | {
        remainder: small["mobileone_s0"].state("train")[remainder]
    }
    with pytest.raises(WeightsError, match=r"fused form\).*unexpected stage1\.0\.rbr_scale\.bn\.bias"):
        load_weights(untrained("mobileone_s0", "fused"), write_apple(state, "mobileone_s0", tmp_path))


@pytest.mark.parametrize(
    ("model", "model_form", "file", "file_form", "said"),
    [
        ("fastvit_t8", "train", "mobileone_s0", "train", r"by 'stage0\.rbr_.*does not fit a FastViT"),
        ("mobileone_s0", "fused", "fastvit_t8", "fused", r"by 'patch_embed\.0\..*does not fit a MobileOne"),
        (
            "fastvit_t8",
            "train",
            "fastvit_t8",
            "fused",
            r"in train form[^$]*hint: .*regraft\.fuse\(model\.eval",
        ),
        ("fastvit_t8", "fused", "fastvit_t8", "train", r"in fused form[^$]*hint: Load, then fuse"),
        ("fastvit_t8", "train", "fastvit_sa12", "train", r"missing network\.6\.0\.token_mixer\.layer_scale"),
        (
            "fastvit_mini",
            "train",
            "fastvit_t8",
            "train",
            r"Apple has no network with a part like stages\.2\.",
        ),
        ("mobileone_mini", "train", "mobileone_s0", "train", r"unexpected stage1\.0\.rbr_conv"),
    ],
)
def test_wrong_file_for_the_model(
    small: dict[str, Reference],
    model: str,
    model_form: str,
    file: str,
    file_form: str,
    said: str,
    tmp_path: Path,
) -> None:
    path = write_apple(small[file].state(file_form), file, tmp_path)
    with pytest.raises(WeightsError, match=said):
        load_weights(untrained(model, model_form), path)


@pytest.mark.parametrize("num_classes", [10, 0])
def test_other_classifier_has_both_sizes_and_a_hint(
    small: dict[str, Reference], num_classes: int, tmp_path: Path
) -> None:
    path = write_timm(small["fastvit_t8"].state("train"), "fastvit_t8", tmp_path)
    said = rf"head\.fc\.weight[^$]*file has 1000 classes, the model {num_classes}: .*num_classes=1000"
    with pytest.raises(WeightsError, match=said):
        load_weights(create_model("fastvit_t8", num_classes=num_classes), path)


class Intruder:
    def __init__(self, trace: Path) -> None:
        self.trace = trace

    def __reduce__(self) -> tuple[Callable[[str], int], tuple[str]]:
        return os.system, (f"touch {self.trace}",)


@pytest.mark.parametrize("zipped", [True, False])
def test_code_in_a_file_is_refused_and_never_run(zipped: bool, tmp_path: Path) -> None:
    torch.save(
        {"stem.weight": Intruder(tmp_path / "trace")},
        tmp_path / "code.pth",
        _use_new_zipfile_serialization=zipped,
    )
    with pytest.raises(WeightsError, match=r"asks to load posix\.system[^$]*hint: .*safetensors"):
        load_weights(create_model("mobileone_mini"), tmp_path / "code.pth")
    assert not (tmp_path / "trace").exists()


@pytest.mark.parametrize("suffix", [".safetensors", ".pth", ".pt"])
@pytest.mark.parametrize("kept", [0.0, 0.001, 0.5, 0.999])
def test_truncated_file(suffix: str, kept: float, tmp_path: Path) -> None:
    state, path = create_model("mobileone_mini").state_dict(), tmp_path / f"cut{suffix}"
    save_file(state, path) if suffix == ".safetensors" else torch.save(state, path)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    with pytest.raises(WeightsError, match=rf"cut\{suffix} is (damaged|not a whole)"):
        load_weights(create_model("mobileone_mini"), path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_text_file(suffix: str, tmp_path: Path) -> None:
    path = tmp_path / f"readme{suffix}"
    path.write_text("Not found. Please log in to download this file.\n")
    with pytest.raises(WeightsError, match=rf"readme\{suffix} is (damaged|not a whole)"):
        load_weights(create_model("mobileone_mini"), path)


@pytest.mark.parametrize("name", ["absent.pth", "absent.safetensors", "."])
def test_no_file(name: str, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match=r"cannot be opened: (No such file|Is a directory)"):
        load_weights(create_model("mobileone_mini"), tmp_path / name)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ({}, "holds an empty dict"),
        ([1, 2], "holds a list"),
        (torch.zeros(3), "holds a Tensor"),
        ({"model": {}, "epoch": 3}, "not tensors by name: 'model', 'epoch'"),
        ({0: torch.zeros(3)}, "not tensors by name: 0"),
        ({"state_dict": {"stem.weight": 1.0}}, "not tensors by name: 'stem.weight'"),
        ({"layer1.0.conv1.weight": torch.zeros(3)}, "no MobileOne or FastViT.*layer1.0.conv1.weight"),
    ],
)
def test_something_else_in_the_file(content: object, said: str, tmp_path: Path) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(WeightsError, match=said):
        load_weights(create_model("mobileone_mini"), tmp_path / "other.pth")


def test_only_networks_of_ours_are_filled(tmp_path: Path) -> None:
    save_file(create_model("mobileone_mini").state_dict(), tmp_path / "ours.safetensors")
    with pytest.raises(WeightsError, match=r"The model \(Linear\) is neither"):
        load_weights(nn.Linear(3, 3), tmp_path / "ours.safetensors")


@pytest.mark.parametrize(
    ("name", "form", "error", "said"),
    [
        ("fastvit_sa12", "fused", WeightsError, "This FastViT is fused.*"),
        ("mobileone_s1", "fused", WeightsError, "This MobileOne is fused.*"),
        ("mobileone_mini", "train", ArchitectureError, "timm has no MobileOne of 3 stages"),
        ("fastvit_mini", "train", ArchitectureError, "timm has no FastViT of 3 stages"),
    ],
)
def test_what_timm_cannot_hold_is_refused(name: str, form: str, error: type[RegraftError], said: str) -> None:
    with pytest.raises(error, match=said):
        to_timm(untrained(name, form))
