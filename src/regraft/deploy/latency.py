"""Fair timing of functions that do the same work."""

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass

import torch

from regraft.errors import RecipeError
from regraft.machine import processor_name


@dataclass(frozen=True, kw_only=True)
class Latency:
    """Time of one call, over many calls, on a named device."""

    wall_median_ms: float
    """Median time by the clock, milliseconds."""
    wall_p95_ms: float
    """95th percentile of the time by the clock, milliseconds."""
    cpu_median_ms: float
    """Median time of all threads of this process on the processor, milliseconds. Next to the clock it
    shows how many threads worked, and it does not grow when other programs take the processor."""
    cpu_p95_ms: float
    """95th percentile of the processor time, milliseconds."""
    repeats: int
    """Calls measured, after the warm-up."""
    threads: int
    """Threads that torch may use; ONNX and OpenVINO artifacts loaded by Regraft are given as many, while
    ExecuTorch chooses its own number."""
    device: str
    """Name of the processor or GPU."""

    def to_json(self) -> dict[str, float | int | str]:
        """All of it as plain numbers and words."""
        return asdict(self)


def measure(
    candidates: Mapping[str, Callable[[], object]],
    *,
    repeats: int = 30,
    warmup: int = 5,
    device: torch.device | str = "cpu",
) -> dict[str, Latency]:
    """Time functions that do the same work, taking turns.

    Every round calls each candidate once, so that a change of clock speed or of the machine's load
    falls on all of them alike. Ratios of the results are more trustworthy than the results.

    Args:
        candidates: What to time, by name, with its input already inside.
        repeats: Rounds that count.
        warmup: Rounds before them that do not.
        device: Where the candidates work. A GPU is waited for after each call.

    Raises:
        RecipeError: Nothing to measure: no candidates, `repeats` below 1 or `warmup` below 0.
    """
    if not candidates or repeats < 1 or warmup < 0:
        raise RecipeError(
            f"Asked to time {len(candidates)} candidates {repeats} times after {warmup} warm-up rounds; "
            "expected at least 1, 1 and 0."
        )
    device = torch.device(device)
    times: dict[str, list[tuple[int, int]]] = {name: [] for name in candidates}
    for _ in range(warmup + repeats):
        for name, candidate in candidates.items():
            times[name].append(_time_ns(candidate, device))
    return {name: summarise(measured[warmup:], device) for name, measured in times.items()}


def device_name(device: torch.device | str = "cpu") -> str:
    """What the hardware calls itself, such as "AMD EPYC" or "NVIDIA H100 80GB HBM3"."""
    device = torch.device(device)
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return processor_name() if device.type == "cpu" else str(device)


def _time_ns(candidate: Callable[[], object], device: torch.device) -> tuple[int, int]:
    wall, cpu = time.perf_counter_ns(), time.process_time_ns()
    candidate()
    _wait_for(device)
    return time.perf_counter_ns() - wall, time.process_time_ns() - cpu


def _wait_for(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
    elif device.type == "mps":
        torch.mps.synchronize()


def summarise(times_ns: list[tuple[int, int]], device: torch.device) -> Latency:
    """Sum up pairs of nanoseconds, by the clock and on the processor, one pair a call."""
    times_ms = torch.tensor(times_ns, dtype=torch.float64) / 1e6
    (wall_median, cpu_median), (wall_p95, cpu_p95) = times_ms.quantile(
        torch.tensor([0.5, 0.95], dtype=torch.float64), dim=0
    ).tolist()
    return Latency(
        wall_median_ms=wall_median,
        wall_p95_ms=wall_p95,
        cpu_median_ms=cpu_median,
        cpu_p95_ms=cpu_p95,
        repeats=len(times_ns),
        threads=torch.get_num_threads(),
        device=device_name(device),
    )
