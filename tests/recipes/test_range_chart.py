import re
import xml.etree.ElementTree as ElementTree

from regraft.recipes.charts import INK
from regraft.recipes.range_chart import range_chart


def metrics(step: int) -> dict[str, float]:
    return {
        "top1": 0.5,
        "range_psnr_db": 40 - 0.1 * step,
        "range_target_db": 40 - 0.11 * step,
        "range_brightness_low": 1 - 0.001 * step,
        "range_brightness_high": 1 + 0.01 * step,
        "range_noise_low": 0.0,
        "range_noise_high": 0.002 * step,
    }


EVALUATIONS = [(0, {"top1": 0.1}), *((step, metrics(step)) for step in range(10, 110, 10))]


def test_it_is_svg_in_the_pages_ink_with_a_panel_for_each_operation() -> None:
    chart = range_chart(EVALUATIONS, name="mine")
    assert ElementTree.fromstring(chart).tag.endswith("svg")
    assert "currentColor" in chart
    assert INK not in chart
    titles = [title for title in ("PSNR (dB)", "brightness", "noise", "contrast") if f">{title}<" in chart]
    assert titles == ["PSNR (dB)", "brightness", "noise"]
    assert all(name.startswith("mine-") for name in re.findall(r'\bid="([^"]+)"', chart))
    assert chart == range_chart(EVALUATIONS, name="mine")


def test_a_run_without_learned_ranges_has_an_empty_chart() -> None:
    assert ElementTree.fromstring(range_chart([(5, {"top1": 0.1})])).tag.endswith("svg")
