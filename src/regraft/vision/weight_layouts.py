"""What Apple's code and timm call each part of the networks here."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, product
from typing import Literal, NamedTuple

from torch import Tensor

from regraft.errors import WeightsError
from regraft.vision import fastvit, mobileone

Origin = Literal["Apple", "timm", "Regraft"]
Family = Literal["MobileOne", "FastViT"]
Form = Literal["train", "fused"]


@dataclass(frozen=True)
class Kind:
    """Whose names a state dict uses, for which family, with or without its branches."""

    origin: Origin
    family: Family
    form: Form

    def __str__(self) -> str:
        return f"{self.origin} {self.family}, {self.form} form"


MARKS = {
    Kind("Apple", "MobileOne", "train"): r"stage0\.rbr_",
    Kind("Apple", "MobileOne", "fused"): r"stage0\.reparam_conv\.",
    Kind("Apple", "FastViT", "train"): r"patch_embed\.\d\.rbr_",
    Kind("Apple", "FastViT", "fused"): r"patch_embed\.\d\.reparam_conv\.",
    Kind("timm", "MobileOne", "train"): r"stem\.conv_",
    Kind("timm", "MobileOne", "fused"): r"stem\.reparam_conv\.",
    Kind("timm", "FastViT", "train"): r"stem\.\d\.(conv_|identity\.)",
    Kind("timm", "FastViT", "fused"): r"stem\.\d\.reparam_conv\.",
    Kind("Regraft", "MobileOne", "train"): r"stem\.conv\.(convs|norms)\.",
    Kind("Regraft", "MobileOne", "fused"): r"stem\.conv\.(weight|bias)",
    Kind("Regraft", "FastViT", "train"): r"stem\.\d\.conv\.(convs|norms|skip)\.",
    Kind("Regraft", "FastViT", "fused"): r"stem\.\d\.conv\.(weight|bias)",
}
"""How entries of the stem begin in each kind; every stem has several, in case that one is missing."""


def recognise(keys: Iterable[str]) -> Kind | None:
    """The kind whose mark most of `keys` bear, or `None` if no key bears one."""
    votes = Counter(kind for key in keys for kind, mark in MARKS.items() if re.match(mark, key))
    return max(votes, key=votes.__getitem__, default=None)


def evidence(kind: Kind, keys: Iterable[str]) -> str:
    """The first of `keys` that bears the mark of `kind`."""
    return next(key for key in keys if re.match(MARKS[kind], key))


class Names(NamedTuple):
    """One part under its three names. An entry below the part keeps the rest of its name."""

    ours: str
    apple: str
    timm: str


def _inside(place: Names, parts: Sequence[Names]) -> list[Names]:
    return [Names(*map(".".join, zip(place, part, strict=True))) for part in parts]


MAX_COPIES = max(variant.copies for variant in mobileone.VARIANTS.values())
MAX_PAIRS = max(max(variant.depths) for variant in mobileone.VARIANTS.values())
MAX_BLOCKS = max(max(variant.depths) for variant in fastvit.VARIANTS.values())

FOLDED = [
    Names("weight", "reparam_conv.weight", "reparam_conv.weight"),
    Names("bias", "reparam_conv.bias", "reparam_conv.bias"),
]
BRANCHES = [
    *(Names(f"wide.{j}.conv", f"rbr_conv.{j}.conv", f"conv_kxk.{j}.conv") for j in range(MAX_COPIES)),
    *(Names(f"wide.{j}.norm", f"rbr_conv.{j}.bn", f"conv_kxk.{j}.bn") for j in range(MAX_COPIES)),
    Names("narrow.0.conv", "rbr_scale.conv", "conv_scale.conv"),
    Names("narrow.0.norm", "rbr_scale.bn", "conv_scale.bn"),
    Names("skip", "rbr_skip", "identity"),
    *FOLDED,
]
LARGE_KERNEL = [
    Names("wide.0.conv", "lkb_origin.conv", "large_conv.conv"),
    Names("wide.0.norm", "lkb_origin.bn", "large_conv.bn"),
    Names("narrow.0.conv", "small_conv.conv", "small_conv.conv"),
    Names("narrow.0.norm", "small_conv.bn", "small_conv.bn"),
    Names("weight", "lkb_reparam.weight", "reparam_conv.weight"),
    Names("bias", "lkb_reparam.bias", "reparam_conv.bias"),
]
GATE = [Names("reduce", "reduce", "fc1"), Names("expand", "expand", "fc2")]


def _block(stage: int, pair: int, half: Literal["depthwise", "pointwise"]) -> list[Names]:
    number = 2 * pair + (half == "pointwise")
    ours, apple, timm = (
        f"stages.{stage}.{pair}.{half}",
        f"stage{stage + 1}.{number}",
        f"stages.{stage}.{number}",
    )
    return [
        *_inside(Names(f"{ours}.conv", apple, timm), BRANCHES),
        *_inside(Names(f"{ours}.gate", f"{apple}.se", f"{timm}.attn"), GATE),
    ]


MOBILEONE = [
    *_inside(Names("stem.conv", "stage0", "stem"), BRANCHES),
    *chain.from_iterable(
        _block(stage, pair, half)
        for stage, pair, half in product(range(4), range(MAX_PAIRS), ("depthwise", "pointwise"))
    ),
    Names("head", "linear", "head.fc"),
]

FEED_FORWARD = [
    Names("ffn.branch.conv.wide.0.conv", "convffn.conv.conv", "mlp.conv.conv"),
    Names("ffn.branch.conv.wide.0.norm", "convffn.conv.bn", "mlp.conv.bn"),
    Names("ffn.branch.expand", "convffn.fc1", "mlp.fc1"),
    Names("ffn.branch.reduce", "convffn.fc2", "mlp.fc2"),
]
MIXER_BLOCK = [
    *_inside(Names("mix.mixer", "token_mixer.mixer", "token_mixer.mixer"), BRANCHES),
    *_inside(Names("mix.norm", "token_mixer.norm", "token_mixer.norm"), BRANCHES),
    *_inside(Names("mix", "token_mixer", "token_mixer"), FOLDED),
    Names("mix.scale", "token_mixer.layer_scale", "token_mixer.layer_scale.gamma"),
    *FEED_FORWARD,
    Names("ffn.scale", "layer_scale", "layer_scale.gamma"),
]
ATTENTION_BLOCK = [
    Names("mix.branch.norm", "norm", "norm"),
    Names("mix.branch.attention.qkv", "token_mixer.qkv", "token_mixer.qkv"),
    Names("mix.branch.attention.project", "token_mixer.proj", "token_mixer.proj"),
    Names("mix.scale", "layer_scale_1", "layer_scale_1.gamma"),
    *FEED_FORWARD,
    Names("ffn.scale", "layer_scale_2", "layer_scale_2.gamma"),
]


def _blocks(stage: int, network_index: int, parts: Sequence[Names]) -> list[Names]:
    ours, apple = f"stages.{stage}.blocks", f"network.{network_index}"
    places = [Names(f"{ours}.{i}", f"{apple}.{i}", f"{ours}.{i}") for i in range(MAX_BLOCKS)]
    return list(chain.from_iterable(_inside(place, parts) for place in places))


def _embed(stage: int, network_index: int) -> list[Names]:
    ours, apple, timm = f"stages.{stage}", f"network.{network_index}", f"stages.{stage}.downsample"
    return [
        *_inside(Names(f"{ours}.embed.large", f"{apple}.proj.0", f"{timm}.proj.0"), LARGE_KERNEL),
        *_inside(Names(f"{ours}.embed.mix.conv", f"{apple}.proj.1", f"{timm}.proj.1"), BRANCHES),
    ]


# Apple's code numbers blocks, embeddings and the position encoding in one sequence.
FASTVIT_ALIKE = [
    *_inside(Names("stem.0.conv", "patch_embed.0", "stem.0"), BRANCHES),
    *_inside(Names("stem.1.conv", "patch_embed.1", "stem.1"), BRANCHES),
    *_inside(Names("stem.2.conv", "patch_embed.2", "stem.2"), BRANCHES),
    *_blocks(0, 0, MIXER_BLOCK),
    *_embed(1, 1),
    *_blocks(1, 2, MIXER_BLOCK),
    *_embed(2, 3),
    *_blocks(2, 4, MIXER_BLOCK),
    *_embed(3, 5),
    *_inside(Names("neck.conv", "conv_exp", "final_conv"), BRANCHES),
    *_inside(Names("neck.gate", "conv_exp.se", "final_conv.se"), GATE),
    Names("head", "head", "head.fc"),
]
FASTVIT = [*FASTVIT_ALIKE, *_blocks(3, 6, MIXER_BLOCK)]
FASTVIT_ATTENTION = [
    *FASTVIT_ALIKE,
    Names("stages.3.position.conv", "network.6.pe", "stages.3.pos_emb.pos_enc"),
    *_inside(Names("stages.3.position", "network.6", "stages.3.pos_emb"), FOLDED),
    *_blocks(3, 7, ATTENTION_BLOCK),
]


def naming(entries: Mapping[str, Tensor], origin: Origin) -> Callable[[str], str]:
    """The function from our names to those of `origin`, for networks with the state dict `entries`.

    It raises `WeightsError` for a part that `origin` does not have.
    """
    if origin == "Regraft":
        return lambda key: key
    names = {row.ours: row.apple if origin == "Apple" else row.timm for row in _table(entries)}

    def published(key: str) -> str:
        name = _translate(_spell_out(key, entries), names)
        if name is None:
            raise WeightsError(f"{origin} has no network with a part like {key}.")
        return name

    return published


def _table(entries: Mapping[str, Tensor]) -> list[Names]:
    if not any(key.startswith("neck.") for key in entries):
        return MOBILEONE
    attends = any(key.startswith("stages.3.position.") for key in entries)
    return FASTVIT_ATTENTION if attends else FASTVIT


def _translate(key: str, names: Mapping[str, str]) -> str | None:
    """Replace the longest beginning of `key` that has a name, whole segments only."""
    segments = key.split(".")
    for end in range(len(segments), 0, -1):
        if name := names.get(".".join(segments[:end])):
            return ".".join([name, *segments[end:]])
    return None


def _spell_out(key: str, entries: Mapping[str, Tensor]) -> str:
    """Say which branches are narrow: `b.convs.4.weight` may become `b.narrow.0.conv.weight`.

    We number a block's branches, the widest first; the others name wide and narrow ones apart.
    """
    found = re.fullmatch(r"(.+)\.(conv|norm)s\.(\d+)\.(\w+)", key)
    if found is None:
        return key
    block, layer, branch, entry = found.groups()
    widths = [entries[f"{block}.convs.{j}.weight"].shape[-1] for j in range(int(branch) + 1)]
    first_alike = widths.index(widths[-1])
    role = "narrow" if first_alike else "wide"
    return f"{block}.{role}.{int(branch) - first_alike}.{layer}.{entry}"
