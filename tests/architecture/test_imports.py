"""The layers of docs/decisions/001: an import goes down, or sideways among the parts."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import regraft

ROOT = Path(regraft.__file__).parent
LAYERS = [
    {"errors", "files", "machine"},
    {"ops", "nn", "augment", "data"},
    {"tables", "train", "deploy"},
    {"vision", "speech", "retrieval", "scene"},
    {"recipes"},
    {"cli", "console"},
    {"__main__"},
]
PEERS_MAY_IMPORT = {0, 1}
RANK = {name: rank for rank, names in enumerate(LAYERS) for name in names}
BANNED_NAMES = {"utils", "util", "common", "base", "helpers", "misc"}
MAX_LINES = 400


def imports(path: Path) -> Iterator[tuple[int, str]]:
    """Line and dotted name of every import, at any depth; a relative one starts with a dot."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom):
            module = "." * node.level + (node.module or "")
            # `from regraft import vision` names the unit among what it imports.
            yield from ((node.lineno, f"{module}.{alias.name}") for alias in node.names)
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name) for alias in node.names)


def violations(root: Path) -> Iterator[str]:
    for path in sorted(root.rglob("*.py")):
        home = path.relative_to(root).parts[0].removesuffix(".py")
        if home == "__init__":
            continue  # The public names, loaded on first use; test_public_names.py holds them down.
        where = path.relative_to(root)
        if home not in RANK:
            yield f"{where} is in no layer"
            continue
        for line, name in imports(path):
            if name.startswith("."):
                yield f"{where}:{line} imports {name}, which is relative"
            package, _, rest = name.partition(".")
            unit = rest.partition(".")[0]
            if package != root.name or unit not in RANK or unit == home:
                continue
            climb = RANK[unit] - RANK[home]
            if climb > 0 or (climb == 0 and RANK[home] not in PEERS_MAY_IMPORT):
                yield f"{where}:{line} imports {name}, which is not below it"


def cycles(root: Path) -> list[str]:
    """Parts that import one another in a circle."""
    edges: dict[str, set[str]] = {}
    for path in root.rglob("*.py"):
        home = path.relative_to(root).parts[0].removesuffix(".py")
        units = {name.split(".")[1] for _, name in imports(path) if name.startswith(f"{root.name}.")}
        edges.setdefault(home, set()).update(units & RANK.keys() - {home})

    def reaches(start: str, goal: str, seen: frozenset[str]) -> bool:
        return any(
            nxt == goal or (nxt not in seen and reaches(nxt, goal, seen | {nxt}))
            for nxt in edges.get(start, ())
        )

    return [unit for unit in edges if unit in RANK and reaches(unit, unit, frozenset())]


def test_imports_point_down() -> None:
    assert not list(violations(ROOT))
    assert not cycles(ROOT)


@pytest.mark.parametrize(
    ("where", "line"),
    [
        ("vision/a.py", "from regraft.speech import words"),
        ("vision/a.py", "def f():\n    import regraft.retrieval.store.memory"),
        ("nn/a.py", "from regraft.train.loop import fit"),
        ("train/a.py", "from regraft import deploy"),
        ("vision/a.py", "from . import b"),
        ("helpers/a.py", "import torch"),
    ],
)
def test_a_forbidden_import_is_found(tmp_path: Path, where: str, line: str) -> None:
    path = tmp_path / "regraft" / where
    path.parent.mkdir(parents=True)
    path.write_text(line)
    assert list(violations(tmp_path / "regraft"))


def test_a_circle_is_found(tmp_path: Path) -> None:
    for home, line in {"nn": "import regraft.data.b", "data": "import regraft.nn.b"}.items():
        (tmp_path / "regraft" / home).mkdir(parents=True)
        (tmp_path / "regraft" / home / "a.py").write_text(line)
    assert sorted(cycles(tmp_path / "regraft")) == ["data", "nn"]


@pytest.mark.parametrize("path", sorted(ROOT.rglob("*.py")), ids=lambda path: str(path.relative_to(ROOT)))
def test_files_are_small_and_named_for_an_idea(path: Path) -> None:
    assert path.stem not in BANNED_NAMES
    assert len(path.read_text().splitlines()) <= MAX_LINES
    assert ast.get_docstring(ast.parse(path.read_text())), "a module's first line says what it is for"


def loaded_by(command: str) -> set[str]:
    script = f"import sys\n{command}\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    return set(done.stdout.split())


HEAVY = {
    "torch",
    "torchvision",
    "lancedb",
    "pyarrow",
    "onnx",
    "onnxruntime",
    "matplotlib",
    "sklearn",
    "numpy",
}


def test_importing_regraft_is_light() -> None:
    assert not loaded_by("import regraft") & HEAVY


def test_optional_packages_wait_until_they_are_used() -> None:
    light = "import regraft; [getattr(regraft, name) for name in regraft.__all__]"
    assert not loaded_by(light) & {"openvino", "executorch", "coremltools", "lancedb", "tensorboard", "timm"}
