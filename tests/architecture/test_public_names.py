"""What a user may type after `regraft.`; a change here is a decision."""

import inspect
from collections.abc import Callable

import pytest

import regraft

PUBLIC = {
    "Encoder": "model, preprocess, *, batch_size=64",
    "RegraftError": "message, *, hint=None",
    "compare": "reference, candidate, inputs, *, tolerance=0.0001, min_agreement=0.99",
    "create_model": "name, *, num_classes=1000, in_channels=3, output_stride=None, drop_path=0.0",
    "export": (
        "model, path, *, example, target='onnx', metadata, inputs=(), tolerance=None, dynamic_axes=None"
    ),
    "fuse": "model",
    "list_models": "",
    "load_model": "path",
    "load_weights": "model, path",
    "open_gallery": "uri",
    "save_model": "path, model, card",
}


def parameters(thing: Callable[..., object]) -> str:
    """The parameters of `thing` without their annotations."""
    signature = inspect.signature(thing)
    bare = [parameter.replace(annotation=parameter.empty) for parameter in signature.parameters.values()]
    return str(inspect.Signature(bare))[1:-1]


def test_the_list_is_the_decision() -> None:
    assert sorted(PUBLIC) == regraft.__all__ == sorted(regraft._HOMES)


@pytest.mark.parametrize("name", PUBLIC)
def test_each_name_loads(name: str) -> None:
    thing = getattr(regraft, name)
    assert thing.__module__ == regraft._HOMES[name]
    assert thing.__doc__
    assert parameters(thing) == PUBLIC[name]


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
        _ = regraft.fuze
