"""Charts of an evaluation: in the page's ink, their ids apart, whatever the numbers are."""

import re
import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from regraft.recipes.charts import INK
from regraft.recipes.evaluation_charts import corruption_chart, reliability_chart
from regraft.vision.calibration import Bins, confidence_bins
from regraft.vision.corruption_errors import CorruptionErrors
from regraft.vision.corruptions import CORRUPTIONS, SEVERITIES


def bins(num: int = 200) -> Bins:
    draw = np.random.default_rng(0)
    return confidence_bins(draw.dirichlet([0.4] * 5, num), draw.integers(0, 5, num))


def errors() -> CorruptionErrors:
    return CorruptionErrors(
        clean=0.2, errors={name: {level: 0.2 + level / 10 for level in SEVERITIES} for name in CORRUPTIONS}
    )


@pytest.fixture(scope="module")
def charts() -> list[str]:
    return [reliability_chart(bins()), corruption_chart(errors())]


def test_charts_are_svg_in_the_pages_ink(charts: list[str]):
    for chart in charts:
        assert ElementTree.fromstring(chart).tag.endswith("svg")
        assert "currentColor" in chart
        assert INK not in chart
        assert not re.search(r'(?:href|src)="(?!#)', chart)


def test_charts_in_one_page_do_not_share_ids(charts: list[str]):
    more = [*charts, reliability_chart(bins(), name="second")]
    ids = [name for chart in more for name in re.findall(r'\bid="([^"]+)"', chart)]
    assert len(ids) == len(set(ids))


def test_charts_show_their_numbers(charts: list[str]):
    found = bins()
    right = 100 * found.num_right.sum() / 200
    assert f"named right {right:.1f} %" in charts[0]
    assert charts[1].count(">50.0<") == 15, "the mean over severities of each"
    assert all(name.replace("_", " ") in charts[1] for name in CORRUPTIONS)
    assert all(f">{level}<" in charts[1] for level in SEVERITIES[1:])


def test_the_same_numbers_make_the_same_chart(charts: list[str]):
    assert charts == [reliability_chart(bins()), corruption_chart(errors())]


def test_a_single_sample_and_a_single_severity():
    one = confidence_bins(np.array([[1.0, 0.0]]), np.array([0]))
    assert "named right 100.0 %" in reliability_chart(one)
    lonely = corruption_chart(CorruptionErrors(clean=0.0, errors={"fog": {3: 0.0}}))
    assert "severity 3" in lonely
    assert "fog" in lonely
    assert "snow" not in lonely
