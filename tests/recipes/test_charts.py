import re
import xml.etree.ElementTree as ElementTree

import pytest

from regraft.deploy.latency import Latency
from regraft.recipes.charts import INK, latency_chart, smoothed, training_chart
from regraft.train.journal import Event


def event(step: int, **evaluation: float) -> Event:
    return Event(step=step, loss=2.0 / step, terms={}, lr=0.1, gradient_norm=1.0, evaluation=evaluation)


def latency(median_ms: float) -> Latency:
    return Latency(
        wall_median_ms=median_ms,
        wall_p95_ms=2 * median_ms,
        cpu_median_ms=median_ms,
        cpu_p95_ms=median_ms,
        repeats=3,
        threads=1,
        device="a processor",
    )


@pytest.fixture(scope="module")
def charts() -> list[str]:
    events = [*(event(step) for step in range(1, 10)), event(10, top1=0.875)]
    times = {size: {"eager": latency(3.0 * size), "fused": latency(1.0 * size)} for size in (1, 8)}
    return [training_chart(events), latency_chart(times)]


def test_charts_are_svg_in_the_pages_ink(charts: list[str]) -> None:
    for chart in charts:
        assert ElementTree.fromstring(chart).tag.endswith("svg")
        assert "currentColor" in chart
        assert INK not in chart
        assert not re.search(r'(?:href|src)="(?!#)', chart)


def test_charts_in_one_page_do_not_share_ids(charts: list[str]) -> None:
    ids = [name for chart in charts for name in re.findall(r'\bid="([^"]+)"', chart)]
    assert len(ids) == len(set(ids))
    for chart in charts:
        assert set(re.findall(r'(?:url\(#|href="#)([^)"]+)', chart)) <= set(ids)


def test_charts_show_their_numbers(charts: list[str]) -> None:
    assert "87.5" in charts[0]
    assert {"3.00", "24.00", "8.00"} <= set(re.findall(r"\d+\.\d\d", charts[1]))


def test_the_same_numbers_make_the_same_chart(charts: list[str]) -> None:
    assert latency_chart({1: {"a": latency(1.0)}}) == latency_chart({1: {"a": latency(1.0)}})


def test_smoothing_is_a_mean_of_what_came_before() -> None:
    assert smoothed([4.0, 2.0, 0.0, 2.0], 2).tolist() == [4, 3, 1, 1]
