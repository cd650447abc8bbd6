"""What a user may type after `regraft.`; a change here is a decision."""

import inspect

import pytest

import regraft

PUBLIC = {
    "Encoder": "(model: torch.nn.modules.module.Module, preprocess: regraft.nn.encoder.Preprocessing[~Sample], *, batch_size: int = 64) -> None",
    "RegraftError": "(message: str, *, hint: str | None = None) -> None",
    "compare": None,
    "create_model": "(name: str, *, num_classes: int = 1000, in_channels: int = 3, output_stride: int | None = None, drop_path: float = 0.0) -> regraft.vision.backbone.Backbone",
    "export": None,
    "fuse": "(model: torch.nn.modules.module.Module) -> torch.nn.modules.module.Module",
    "list_models": "() -> list[str]",
    "load_model": None,
    "load_weights": None,
    "open_gallery": None,
    "save_model": None,
}


def test_the_list_is_the_decision() -> None:
    assert sorted(PUBLIC) == regraft.__all__ == sorted(regraft._HOMES)


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_loads(name: str) -> None:
    thing = getattr(regraft, name)
    assert thing.__module__ == regraft._HOMES[name]
    assert thing.__doc__
    if PUBLIC[name] is not None:
        assert str(inspect.signature(thing)) == PUBLIC[name]


def test_every_model_name() -> None:
    assert regraft.list_models() == [
        "fastvit_ma36",
        "fastvit_mini",
        "fastvit_s12",
        "fastvit_sa12",
        "fastvit_sa24",
        "fastvit_sa36",
        "fastvit_t12",
        "fastvit_t8",
        "mobileone_mini",
        "mobileone_s0",
        "mobileone_s1",
        "mobileone_s2",
        "mobileone_s3",
        "mobileone_s4",
    ]


def test_an_unknown_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'fuze'"):
        regraft.fuze
