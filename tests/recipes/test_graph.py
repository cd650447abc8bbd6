import xml.etree.ElementTree as ElementTree
from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

from regraft.nn.reparam import BranchedConv, fuse
from regraft.recipes.graph import Operation, arrange, count_kinds, draw, operations, rows
from regraft.vision.models import create_model

SVG = "{http://www.w3.org/2000/svg}"


class Residual(nn.Module):
    """A path with a branched convolution, and a way past it."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(BranchedConv(4, 4, (3, 1), skip=True), nn.ReLU())

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x)


def test_the_graph_is_the_networks_own() -> None:
    model, x = Residual().eval(), torch.zeros(1, 4, 8, 8)
    assert count_kinds(operations(model, x)) == {"norm": 3, "add": 3, "conv": 2, "activation": 1}
    fused = operations(fuse(model), x)
    assert [operation.kind for operation in fused] == ["picture", "conv", "activation", "add"]
    assert fused[-1].sources == (0, 2)
    assert fused[1].part == "body"
    assert fused[1].note == "conv2d → 1 x 4 x 8 x 8"


def test_a_way_past_others_gets_a_lane_of_its_own() -> None:
    spots = arrange([Operation(*node) for node in PAST])
    places = {(spot.column, spot.lane) for spot in spots}
    assert places == {(0, 0), (1, 0), (2, 0), (3, 0), (1, 1), (2, 1)}
    assert [spot.column for spot in spots if spot.operation is None] == [1, 2]


PAST = [
    ("picture", "", "", ()),
    ("conv", "", "", (0,)),
    ("activation", "", "", (1,)),
    ("add", "", "", (0, 2)),
]


@pytest.fixture(scope="module", params=["mobileone_mini", "fastvit_mini"])
def graphs(request: pytest.FixtureRequest) -> tuple[list[Operation], list[Operation]]:
    model, x = create_model(request.param, num_classes=3).eval(), torch.zeros(1, 3, 32, 32)
    return operations(model, x), operations(fuse(model), x)


def test_nothing_lies_on_top_of_another(graphs: tuple[list[Operation], list[Operation]]) -> None:
    for graph in graphs:
        spots = arrange(graph)
        assert len({(spot.column, spot.lane) for spot in spots}) == len(spots)
        assert all(source.column == spot.column - 1 for spot in spots for source in spot.sources)
        # The longest path is drawn straight.
        assert {spot.column for spot in spots if spot.lane == 0} == {spot.column for spot in spots}


def test_rows_hold_everything_and_cut_one_wire(graphs: tuple[list[Operation], list[Operation]]) -> None:
    spots = arrange(graphs[0])
    broken = rows(spots, max_columns=20)
    assert len(broken) > 1
    assert sorted(map(id, (spot for row in broken for spot in row))) == sorted(map(id, spots))
    for row, following in pairwise(broken):
        last = row[-1].column
        assert [spot.column for spot in row].count(last) == 1
        assert following[0].column == last + 1


def test_a_network_that_cannot_be_cut_is_one_row() -> None:
    beside = [Operation("conv", "", "", (number,)) for number in range(9)]
    graph = [Operation("picture", "", "", ()), *beside, Operation("add", "", "", (0, 9))]
    assert len(rows(arrange(graph), max_columns=4)) <= 2


def test_the_drawing_shows_every_operation(graphs: tuple[list[Operation], list[Operation]]) -> None:
    svg = draw(*graphs)
    root = ElementTree.fromstring(svg)
    assert len(root.findall(f".//{SVG}g/{SVG}title")) == sum(map(len, graphs))
    for graph in graphs:
        assert f": {len(graph) - 1} operations" in svg
    assert "http" not in svg.replace(SVG.strip("{}"), "")
    assert "prefers-color-scheme:dark" in svg
