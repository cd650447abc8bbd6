"""Regraft grows efficient perception models and replaces them without replanting."""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from regraft.deploy.export import export
    from regraft.deploy.parity import compare
    from regraft.errors import RegraftError
    from regraft.nn.encoder import Encoder
    from regraft.nn.reparam import fuse
    from regraft.retrieval.store.open import open_gallery
    from regraft.vision.modelfile import load_model, save_model
    from regraft.vision.models import create_model, list_models
    from regraft.vision.weights import load_weights

__version__ = version("regraft")

_HOMES = {
    "Encoder": "regraft.nn.encoder",
    "RegraftError": "regraft.errors",
    "compare": "regraft.deploy.parity",
    "create_model": "regraft.vision.models",
    "export": "regraft.deploy.export",
    "fuse": "regraft.nn.reparam",
    "list_models": "regraft.vision.models",
    "load_model": "regraft.vision.modelfile",
    "load_weights": "regraft.vision.weights",
    "open_gallery": "regraft.retrieval.store.open",
    "save_model": "regraft.vision.modelfile",
}

__all__ = [
    "Encoder",
    "RegraftError",
    "compare",
    "create_model",
    "export",
    "fuse",
    "list_models",
    "load_model",
    "load_weights",
    "open_gallery",
    "save_model",
]


def __getattr__(name: str) -> object:
    """Load a public name on first use, so that `import regraft` stays instant."""
    if name not in _HOMES:
        raise AttributeError(f"module 'regraft' has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)
