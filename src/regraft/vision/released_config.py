"""How released records were made, as the configuration that was released with them says."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, final

from regraft.errors import TableError, nearest

PIXELS = None
"""Stands for a number of pixels, which a configuration must tell."""

STAGES: Mapping[str, Mapping[str, Any]] = {
    "resize": {"size": PIXELS},
    "random_crop": {"size": PIXELS, "padding": PIXELS},
    "random_resized_crop": {"size": PIXELS, "scale": [0.08, 1.0], "ratio": [3 / 4, 4 / 3]},
    "random_horizontal_flip": {"p": 0.5},
    "rand_augment": {"p": 1.0, "num_ops": 2, "magnitude": 9, "num_magnitude_bins": 31},
    "random_erase": {"p": 0.5, "scale": [0.02, 0.33], "ratio": [0.3, 3.3]},
    "mixup": {"alpha": 1.0, "p": 1.0, "div_by": 1.0},
    "cutmix": {"alpha": 1.0, "p": 1.0},
}
"""What a record may have parameters of, in their order, with the settings where a configuration is silent."""
MIXES = ("mixup", "cutmix")
CROPS = ("random_crop", "random_resized_crop")

_WITHOUT_PARAMETERS = ("uint8", "to_tensor", "normalize")
# Released so for Food-101+ and Flowers-102+. Whether their records have crops, the records tell.
_MISSPELT = {"random_resize_crop": "random_resized_crop"}
# Another number of operations or of strengths would need another RandAugment.
_FIXED = {"rand_augment": {"num_ops": 2, "num_magnitude_bins": 31}}


@final
@dataclass(frozen=True)
class Pipeline:
    """What happened to the pictures that a teacher saw.

    Args:
        stages: Those with parameters, in the order of these in a record, each with all its settings.
    """

    stages: Mapping[str, Mapping[str, Any]]

    @property
    def crop(self) -> str:
        """The stage that cut out a part."""
        return next(stage for stage in CROPS if stage in self.stages)

    @property
    def size_px(self) -> int:
        """Height and width of the views."""
        return int(self.stages[self.crop]["size"])

    @property
    def mixes(self) -> bool:
        """Whether records name a partner."""
        return any(stage in self.stages for stage in MIXES)

    def setting(self, stage: str, name: str) -> Any:
        """One setting of a stage; `None` if there is no such stage."""
        return self.stages.get(stage, {}).get(name)


def pipeline_of(config: object, where: Path) -> Pipeline:
    """The pipeline that a configuration describes.

    Args:
        config: As released.
        where: Its file, for errors.

    Raises:
        TableError: It says something that is not understood, or too little.
    """
    reinforce = _mapping(config, "reinforce", where)
    if not reinforce.get("compress"):
        raise TableError(f"{where} has reinforce.compress off; records are read in their short form alone.")
    told = _mapping(reinforce, "image_augmentation", where)
    given = {_MISSPELT.get(name, name): _mapping(told, name, where) for name in told}
    enabled = {name: settings for name, settings in given.items() if settings.get("enable", True)}
    odd = next((name for name in enabled if name not in (*STAGES, *_WITHOUT_PARAMETERS)), None)
    if odd is not None:
        hint = nearest(odd, STAGES) or None
        raise TableError(f"{where} has the stage {odd!r}, expected some of {', '.join(STAGES)}.", hint=hint)
    pipeline = Pipeline({name: _settings(name, enabled[name], where) for name in STAGES if name in enabled})
    _check_squares(pipeline, where)
    return pipeline


def _mapping(parent: object, name: str, where: Path) -> Mapping[str, Any]:
    child = parent.get(name) if isinstance(parent, dict) else None
    if not isinstance(child, dict):
        raise TableError(f"{where} says nothing of {name!r}, expected settings by name.")
    return child


def _settings(stage: str, given: Mapping[str, Any], where: Path) -> Mapping[str, Any]:
    """All settings of a stage; a square is told by one side."""
    usual, fixed = STAGES[stage], _FIXED.get(stage, {})
    settings = {**usual, **given}
    settings.pop("enable", None)
    match settings.get("size"):
        case [side, other] if side == other:
            settings["size"] = side
        case _:
            pass
    for name, value in settings.items():
        if name not in usual:
            raise TableError(
                f"{where} sets {stage}.{name} to {value!r:.60}, expected {', '.join(usual)} alone.",
                hint="Its views cannot be repeated.",
            )
        if not _is_like(value, usual[name]) or value != fixed.get(name, value):
            wanted = usual[name] or "a number of pixels"
            raise TableError(f"{where} has {stage}.{name} = {value!r:.60}, expected {wanted}.")
    return settings


def _is_like(value: object, usual: object) -> bool:
    if isinstance(usual, list):
        return isinstance(value, list | tuple) and len(value) == 2 and all(_is_like(v, 1.0) for v in value)
    if usual is PIXELS:
        return isinstance(value, int) and value > 0
    return isinstance(value, int | float) and math.isfinite(value)


def _check_squares(pipeline: Pipeline, where: Path) -> None:
    """Refuse what is not cut to squares of one size, by one crop."""
    crops = [stage for stage in CROPS if stage in pipeline.stages]
    if len(crops) != 1 or ("resize" in pipeline.stages) != (crops == ["random_crop"]):
        raise TableError(
            f"{where} has the stages {', '.join(pipeline.stages)}; expected random_resized_crop, or resize "
            "and random_crop."
        )
    if pipeline.setting("resize", "size") not in (None, pipeline.size_px):
        raise TableError(
            f"{where} resizes to {pipeline.setting('resize', 'size')} px and cuts out {pipeline.size_px}; "
            "expected one size."
        )
