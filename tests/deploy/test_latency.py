import json
import time

import pytest
import torch

from regraft.deploy.latency import device_name, measure, summarise
from regraft.errors import RecipeError


def test_candidates_take_turns_and_the_warm_up_is_left_out():
    calls: list[str] = []
    results = measure({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, repeats=3, warmup=2)
    assert calls == ["a", "b"] * 5
    assert results["a"].repeats == 3


def test_names_its_device_and_threads():
    (result,) = measure({"sum": lambda: torch.ones(10).sum()}, repeats=2, warmup=0).values()
    assert result.device == device_name()
    assert result.device.strip()
    assert result.threads == torch.get_num_threads()
    assert json.loads(json.dumps(result.to_json())) == result.to_json()
    assert 0 < result.wall_median_ms <= result.wall_p95_ms
    assert result.cpu_median_ms <= result.cpu_p95_ms


def test_sums_up_by_definition():
    # 1 to 101 ms by the clock, ten times as much on the processor, out of order.
    times_ns = [(n * 1_000_000, n * 10_000_000) for n in (*range(51, 102), *range(1, 51))]
    result = summarise(times_ns, torch.device("cpu"))
    assert (result.wall_median_ms, result.wall_p95_ms) == pytest.approx((51, 96))
    assert (result.cpu_median_ms, result.cpu_p95_ms) == pytest.approx((510, 960))
    assert result.repeats == 101


def test_sleep_takes_time_but_no_work():
    sleep_s = 0.05
    (result,) = measure({"sleep": lambda: time.sleep(sleep_s)}, repeats=3, warmup=0).values()
    assert result.wall_p95_ms >= result.wall_median_ms >= 1000 * sleep_s > result.cpu_median_ms


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_waits_for_the_gpu():
    x = torch.randn(4096, 4096, device="cuda")
    result = measure({"product": lambda: x @ x}, repeats=5, device="cuda")["product"]
    assert result.device == torch.cuda.get_device_name()
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    _ = x @ x
    end.record()
    torch.cuda.synchronize()
    assert result.wall_median_ms > 0.5 * start.elapsed_time(end)


@pytest.mark.parametrize(("names", "repeats", "warmup"), [("", 1, 0), ("a", 0, 0), ("a", 1, -1)])
def test_refuses_to_measure_nothing(names: str, repeats: int, warmup: int):
    with pytest.raises(RecipeError, match="expected at least"):
        measure(dict.fromkeys(names, lambda: None), repeats=repeats, warmup=warmup)
