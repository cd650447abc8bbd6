"""A picture of what fusing does: the network's real graph before and after, as one SVG."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from html import escape
from itertools import count, pairwise

from jaxtyping import Float
from torch import Tensor, fx, nn

from regraft.deploy.program import trace

KINDS = {
    "conv": ("conv1d", "conv2d"),
    "norm": ("batch_norm", "layer_norm"),
    "add": ("add", "add_", "sub"),
    "activation": ("relu", "relu_", "gelu", "silu", "sigmoid", "hardswish"),
    "scale": ("mul", "div"),
    "attention": ("scaled_dot_product_attention", "matmul", "softmax"),
    "pool": ("mean", "adaptive_avg_pool2d", "max_pool2d"),
    "linear": ("linear",),
}
"""Operations of torch by what they do in a network; everything else moves or reshapes data."""
KIND_OF = {name: kind for kind, names in KINDS.items() for name in names}

PITCH_PX = 20
"""Distance of neighbouring columns and lanes."""
MAX_COLUMNS = 45
"""Columns after which the drawing goes on in a new row."""


@dataclass(frozen=True)
class Operation:
    """One node of a network's graph."""

    kind: str
    """A key of `KINDS`, "other", or "picture" for the input."""
    part: str
    """The part of the network it belongs to, such as "stages.0"; empty for what is in none."""
    note: str
    """Its name and output size."""
    sources: tuple[int, ...]
    """Positions of the operations whose outputs it takes, all of them earlier in the list."""


def operations(model: nn.Module, example: Float[Tensor, "b c h w"]) -> list[Operation]:
    """List what `model` computes, in order, the input first.

    Args:
        model: In eval mode. Traced by torch.export, so this is what an exporter sees, not a drawing of
            the intention.
        example: An input; its values do not matter.
    """
    program = trace(model, example, ())
    (picture,) = program.graph_signature.user_inputs
    found: list[Operation] = []
    position: dict[fx.Node, int] = {}
    for node in program.graph.nodes:
        sources = tuple(
            dict.fromkeys(position[source] for source in node.all_input_nodes if source in position)
        )
        if node.name == picture:
            position[node] = len(found)
            found.append(Operation("picture", "", _size(node), ()))
        elif node.op == "call_function" and _name(node) == "getitem":
            position[node] = sources[0]  # One of several outputs: a wire, not an operation.
        elif node.op == "call_function" and sources:
            position[node] = len(found)
            kind = KIND_OF.get(_name(node), "other")
            found.append(Operation(kind, _part(node), f"{_name(node)} → {_size(node)}", sources))
    return found


def count_kinds(graph: Sequence[Operation]) -> dict[str, int]:
    """How many operations of each kind, the most frequent first; the input is none."""
    return dict(Counter(operation.kind for operation in graph if operation.sources).most_common())


def _name(node: fx.Node) -> str:
    """`conv2d` of `aten.conv2d.default`."""
    name = getattr(node.target, "__name__", str(node.target))
    return name.partition(".")[0]


def _size(node: fx.Node) -> str:
    value = node.meta["val"]
    return " x ".join(str(size) for size in value.shape) if isinstance(value, Tensor) else "several"


def _part(node: fx.Node) -> str:
    """The outermost module, below the network itself, whose call this operation is part of."""
    stack: dict[str, tuple[str, object]] = node.meta.get("nn_module_stack", {})
    paths = [path.removeprefix("L['self'].") for path, _ in stack.values()]
    return paths[1] if len(paths) > 1 else ""


@dataclass
class Spot:
    """A place in the drawing: an operation, or a bend of a wire that passes by others."""

    operation: Operation | None
    column: int
    """Longest way from the input, in steps."""
    sources: list["Spot"]
    lane: int | None = None
    """Distance from the longest path through the network; negative is above it."""


def arrange(graph: Sequence[Operation]) -> list[Spot]:
    """Give every operation a column and a lane, and every wire a bend in each column that it crosses.

    The longest path is straight, in lane 0. What runs beside it takes the free lane nearest to it,
    below and above in turn (Sugiyama's layered drawing, without its search for fewest crossings:
    branches that start and end together do not cross).
    """
    spots: list[Spot] = []
    home: list[Spot] = []
    for operation in graph:
        column = 1 + max((home[source].column for source in operation.sources), default=-1)
        ends = [_wire(home[source], column, spots) for source in operation.sources]
        home.append(Spot(operation, column, ends))
        spots.append(home[-1])
    _choose_lanes(spots, home[-1])
    return spots


def _wire(start: Spot, column: int, spots: list[Spot]) -> Spot:
    """Lead a wire from `start` to the column before `column`, and return its last bend."""
    for bend in range(start.column + 1, column):
        start = Spot(None, bend, [start])
        spots.append(start)
    return start


def _choose_lanes(spots: Sequence[Spot], last: Spot) -> None:
    taken: set[tuple[int, int]] = set()
    after: dict[int, list[Spot]] = {}
    for spot in spots:
        for source in spot.sources:
            after.setdefault(id(source), []).append(spot)
    _settle(list(_longest_path(last)), taken)
    for spot in sorted(spots, key=lambda spot: spot.column):
        if spot.lane is None:
            _settle(list(_chain(spot, after)), taken)


def _longest_path(last: Spot) -> Iterator[Spot]:
    while True:
        yield last
        if not last.sources:
            return
        last = next((source for source in last.sources if source.operation), last.sources[0])


def _chain(spot: Spot, after: dict[int, list[Spot]]) -> Iterator[Spot]:
    """Follow a branch until it joins something that has its lane already."""
    follower: Spot | None = spot
    while follower is not None:
        yield follower
        follower = next((later for later in after.get(id(follower), []) if later.lane is None), None)


def _settle(chain: Sequence[Spot], taken: set[tuple[int, int]]) -> None:
    columns = [spot.column for spot in chain]
    lane = next(lane for lane in _nearest_lanes() if not any((lane, column) in taken for column in columns))
    taken.update((lane, column) for column in columns)
    for spot in chain:
        spot.lane = lane


def _nearest_lanes() -> Iterator[int]:
    yield 0
    for distance in count(1):
        yield distance
        yield -distance


def rows(spots: Iterable[Spot], max_columns: int = MAX_COLUMNS) -> list[list[Spot]]:
    """Break a drawing into rows, where only one wire would be cut.

    A row is longer than `max_columns` only if it cannot be broken.
    """
    columns: dict[int, list[Spot]] = {}
    for spot in sorted(spots, key=lambda spot: spot.column):
        columns.setdefault(spot.column, []).append(spot)
    broken: list[list[list[Spot]]] = [[]]
    for column in columns.values():
        broken[-1].append(column)
        cuts = [place for place, here in enumerate(broken[-1][:-1], start=1) if len(here) == 1]
        if len(broken[-1]) > max_columns and cuts:
            broken[-1:] = [broken[-1][: cuts[-1]], broken[-1][cuts[-1] :]]
    return [[spot for column in row for spot in column] for row in broken]


STYLE = """
.rg{font:13px system-ui,sans-serif;--ink:#1f2933;--soft:#66717e;--wire:#a9b3bf;--dot:#fff}
@media(prefers-color-scheme:dark){.rg{--ink:#e6eaf0;--soft:#98a3b1;--wire:#5b6675;--dot:#12161c}}
.rg text{fill:var(--ink)}.rg .soft{fill:var(--soft);font-size:11px}.rg .title{font-size:15px;font-weight:600}
.rg path{fill:none;stroke:var(--wire);stroke-width:1.5}.rg .turn{stroke-dasharray:1 4;stroke-linecap:round}
.rg .conv{fill:#3b82f6}.rg .norm{fill:#f0a020}.rg .activation{fill:#12a573}.rg .linear{fill:#8b5cf6}
.rg .pool{fill:#d9468f}.rg .attention{fill:#e5484d}.rg .scale{fill:#b08968}.rg .other{fill:#8592a3}
.rg .add{fill:var(--dot);stroke:#7b8794;stroke-width:1.5}.rg .plus{stroke:#7b8794}
.rg .picture{fill:var(--ink)}
"""

MARGIN_PX = 16
LEGEND = ("picture", *KINDS, "other")


@dataclass(frozen=True)
class Row:
    """A row of a drawing that knows where it stands."""

    spots: list[Spot]
    top: float
    """Upper edge in pixels."""
    first_column: int
    """The column at the left margin. In all rows but the first, the wire from the row above comes in here."""

    @property
    def middle(self) -> float:
        """Height of lane 0."""
        return self.top + 22 - min(spot.lane or 0 for spot in self.spots) * PITCH_PX

    @property
    def bottom(self) -> float:
        """Lower edge in pixels."""
        return self.middle + 14 + max(spot.lane or 0 for spot in self.spots) * PITCH_PX

    @property
    def width(self) -> float:
        """Width with both margins, in pixels."""
        return self.place(self.spots[-1])[0] + PITCH_PX / 2 + MARGIN_PX

    def place(self, spot: Spot) -> tuple[float, float]:
        """Centre of a spot, in pixels."""
        x = MARGIN_PX + (spot.column - self.first_column + 0.5) * PITCH_PX
        return x, self.middle + (spot.lane or 0) * PITCH_PX

    def wires(self) -> Iterator[tuple[Spot, Spot]]:
        """Both ends of each piece of wire in this row."""
        return ((source, spot) for spot in self.spots for source in spot.sources)


def draw(
    before: Sequence[Operation],
    after: Sequence[Operation],
    *,
    titles: tuple[str, str] = ("Trained", "Deployed"),
) -> str:
    """Draw two graphs at one scale, the second below the first, as a self-contained SVG.

    Colours follow the reader's light or dark setting, inside a page and as an image of its own. Every
    operation has a tooltip with its name and output size.

    Args:
        before: The graph with its branches.
        after: The graph without.
        titles: Words before the number of operations.
    """
    parts: list[str] = []
    top, width = 0.0, 0.0
    for title, graph in zip(titles, (before, after), strict=True):
        parts.append(_heading(title, graph, top + 26))
        drawn = _stack(rows(arrange(graph)), top + 36)
        parts += [_row(row) for row in drawn]
        parts += [_turn(row, following) for row, following in pairwise(drawn)]
        top, width = drawn[-1].bottom + 4, max(width, *(row.width for row in drawn))
    parts.append(_legend({operation.kind for operation in (*before, *after)}, top + 24))
    height = top + 24 + MARGIN_PX
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" class="rg" viewBox="0 0 {width:.0f} {height:.0f}" '
        f'width="{width:.0f}" height="{height:.0f}" role="img"><style>{STYLE}</style>{"".join(parts)}</svg>'
    )


def _stack(drawn: Iterable[list[Spot]], top: float) -> list[Row]:
    stacked: list[Row] = []
    for spots in drawn:
        column = spots[0].column
        row = Row(spots, stacked[-1].bottom + 8, column - 1) if stacked else Row(spots, top, column)
        stacked.append(row)
    return stacked


def _heading(title: str, graph: Sequence[Operation], y: float) -> str:
    kinds = count_kinds(graph)
    heading = f"{escape(title)}: {sum(kinds.values())} operations"
    detail = " · ".join(f"{number} {kind}" for kind, number in kinds.items())
    return (
        f'<text x="{MARGIN_PX}" y="{y}"><tspan class="title">{heading}</tspan>'
        f'<tspan class="soft" dx="12">{detail}</tspan></text>'
    )


def _row(row: Row) -> str:
    wires = (_curve(row.place(start), row.place(end)) for start, end in row.wires())
    marks = (_operation(spot.operation, *row.place(spot)) for spot in row.spots if spot.operation)
    return "".join((*wires, *_labels(row), *marks))


def _curve(start: tuple[float, float], end: tuple[float, float]) -> str:
    (x1, y1), (x2, y2) = start, end
    bend = (x1 + x2) / 2
    return f'<path d="M{x1} {y1}C{bend} {y1} {bend} {y2} {x2} {y2}"/>'


def _turn(row: Row, following: Row) -> str:
    """The wire from the end of one row round to the start of the next."""
    last = row.spots[-1]
    (x1, y1), (x2, y2) = row.place(last), following.place(last)
    right, left, between = x1 + PITCH_PX * 0.8, x2 - PITCH_PX * 0.8, row.bottom + 2
    return f'<path class="turn" d="M{x1} {y1}H{right}V{between}H{left}V{y2}H{x2}"/>'


def _labels(row: Row) -> Iterator[str]:
    """The name of each part of the network, above its first operation."""
    part = None
    for spot in row.spots:
        if spot.operation and spot.operation.part not in ("", part):
            part = spot.operation.part
            x, _ = row.place(spot)
            yield f'<text class="soft" x="{x - 7}" y="{row.top + 8}">{escape(part)}</text>'


def _operation(operation: Operation, x: float, y: float) -> str:
    return f"<g><title>{escape(operation.note)}</title>{_mark(operation.kind, x, y)}</g>"


def _mark(kind: str, x: float, y: float) -> str:
    """A shape for each kind, so that it can be told without its colour."""
    if kind == "add":
        return (
            f'<circle class="add" cx="{x}" cy="{y}" r="6"/>'
            f'<path class="plus" d="M{x - 3.5} {y}h7M{x} {y - 3.5}v7"/>'
        )
    if kind in ("activation", "picture"):
        return f'<circle class="{kind}" cx="{x}" cy="{y}" r="{5 if kind == "activation" else 4}"/>'
    width = 7 if kind == "norm" else 14
    return f'<rect class="{kind}" x="{x - width / 2}" y="{y - 7}" width="{width}" height="14" rx="3"/>'


def _legend(kinds: Set[str], y: float) -> str:
    parts: list[str] = []
    x = float(MARGIN_PX + 8)
    for kind in LEGEND:
        if kind in kinds:
            parts.append(f'{_mark(kind, x, y - 4)}<text class="soft" x="{x + 12}" y="{y}">{kind}</text>')
            x += 34 + 6.5 * len(kind)
    return "".join(parts)
