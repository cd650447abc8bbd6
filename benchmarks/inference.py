"""How fast the twelve networks answer on this CPU, against timm.

    python benchmarks/inference.py [--models NAME ...] [--repeats 15] [--threads 1]

Expected beforehand: fused and run by ONNX Runtime or OpenVINO, a network is 1.7 to 3 times as fast as timm's
reparameterized one in eager mode; fused by Regraft and run in eager mode, it is never slower than timm's.
What came out is in the README.

For each network and batch size all candidates take turns in one process, so that the machine's load falls
on all alike; the ratio is the result. With one thread, processor time is what a call costs however busy the
machine is; with more it hides threads that wait, so compare wall time then. One JSON line a network and batch
size is appended to results/inference.jsonl; `python benchmarks/render.py` puts the table into the README.
"""

import argparse
import os

# Threads of one library must not spin while another library's turn is measured.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import tempfile
import warnings
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from timm.utils.model import reparameterize_model

from record import append, environment
from regraft.deploy import openvino
from regraft.deploy.cost import count
from regraft.deploy.export import TARGETS, export
from regraft.deploy.latency import measure
from regraft.nn.reparam import fuse
from regraft.vision.models import create_model, list_models

RESULTS = Path(__file__).parent / "results" / "inference.jsonl"
MODELS = [name for name in list_models() if not name.endswith("mini")]
BATCHES = (1, 8)
GEMM_SIZE = 2048


def main() -> None:
    arguments = parse()
    torch.set_num_threads(arguments.threads)
    for name in arguments.models:
        for batch in BATCHES:
            line = bench(name, batch, arguments.repeats)
            append(RESULTS, [line])
            print(summary(line), flush=True)


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=MODELS, choices=MODELS)
    parser.add_argument("--repeats", type=int, default=15)
    parser.add_argument("--threads", type=int, default=1)
    return parser.parse_args()


def bench(name: str, batch: int, repeats: int) -> dict[str, object]:
    torch.manual_seed(0)
    size_px = 224 if name.startswith("mobileone") else 256
    x = torch.randn(batch, 3, size_px, size_px)
    fused = fuse(create_model(name).eval())
    with tempfile.TemporaryDirectory() as folder, torch.inference_mode():
        calls = candidates(name, fused, x, Path(folder))
        times = measure(calls | gemms(), repeats=repeats, warmup=2)
    return {
        "case": "inference",
        "model": name,
        "batch": batch,
        "size_px": size_px,
        "multiply_adds": count(fused, x[:1]).multiply_adds,
        "gemm_size": GEMM_SIZE,
        "bfloat16_units": openvino.bfloat16_units(),
        "times": {key: latency.to_json() for key, latency in times.items()},
        **environment("torch", "timm", "onnxruntime", "openvino"),
        "threads": torch.get_num_threads(),
    }


def candidates(
    name: str, fused: torch.nn.Module, x: torch.Tensor, folder: Path
) -> dict[str, Callable[[], object]]:
    last = torch.channels_last
    theirs = reparameterize_model(timm.create_model(name).eval()).to(memory_format=last)
    ours = fuse(fused).to(memory_format=last)
    compiled = torch.compile(theirs)
    runners = {}
    for target, suffix in (("onnx", ".onnx"), ("openvino", ".xml")):
        artifact = export(fused, folder / f"model{suffix}", example=x[:1], target=target, metadata={})
        runners[target] = TARGETS[target].load(artifact.path)
    bfloat16 = (
        openvino.load(folder / "model.xml", precision="bfloat16") if openvino.bfloat16_units() else None
    )
    x_last = x.to(memory_format=last)
    calls: dict[str, Callable[[], object]] = {
        "timm_eager": lambda: theirs(x_last),
        "timm_compile": lambda: compiled(x_last),
        "ours_eager": lambda: ours(x_last),
        "ours_onnxruntime": lambda: runners["onnx"](x),
        "ours_openvino": lambda: runners["openvino"](x),
    }
    if bfloat16:
        calls["ours_openvino_bfloat16"] = lambda: bfloat16(x)
    return calls


def gemms() -> dict[str, Callable[[], object]]:
    """The machine's peak, measured in the same rounds as the networks."""
    square = torch.randn(GEMM_SIZE, GEMM_SIZE)
    half = square.bfloat16()
    return {"gemm_float32": lambda: square @ square, "gemm_bfloat16": lambda: half @ half}


def summary(line: dict[str, object]) -> str:
    times = line["times"]
    assert isinstance(times, dict)
    base = times["timm_eager"]["cpu_median_ms"]
    ratios = (
        f"{key} {base / time['cpu_median_ms']:.2f}x" for key, time in times.items() if "gemm" not in key
    )
    return f"{line['model']}, batch {line['batch']}: timm eager {base:.1f} CPU ms; {', '.join(ratios)}"


if __name__ == "__main__":
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        main()
