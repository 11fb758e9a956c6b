"""The lineage graph: a left-to-right tree layout, which the template `lineage.svg.j2` draws."""

from __future__ import annotations

from dataclasses import dataclass

from compresslab.records import StudyRecord, VariantRecord
from compresslab.report import facts, words

NODE_WIDTH, NODE_HEIGHT, GAP, ROW = 168, 62, 150, 84


@dataclass(frozen=True)
class LineageNode:
    """A variant's card: its position in pixels and its lines of text."""

    x: int
    y: int
    name: str
    title: str
    lines: list[str]
    kind: str


@dataclass(frozen=True)
class LineageEdge:
    """A step: its child, the SVG path from the parent's card to the child's, its name, and its effects."""

    child: str
    path: str
    x: int
    y: int
    step: str
    effects: list[str]
    verdict: str
    ratio: str
    faint: bool


@dataclass(frozen=True)
class LineageGraph:
    """Everything the template needs; `width` and `height` in pixels."""

    width: int
    height: int
    nodes: list[LineageNode]
    edges: list[LineageEdge]


def layout(study: StudyRecord) -> LineageGraph:
    """Place every variant: the column is the length of its chain, each leaf has its own row, a parent has the row of its first child."""
    by_name = {variant.name: variant for variant in study.variants}
    children: dict[str, list[VariantRecord]] = {}
    for variant in study.variants:
        # A variant whose parent is not in the record is drawn as the root of another tree.
        children.setdefault(variant.parent if variant.parent in by_name and variant.parent != variant.name else "", []).append(variant)
    places: dict[str, tuple[int, int]] = {}
    rows = 0
    stack = [(variant, 0) for variant in reversed(children.get("", []))]
    while stack:
        variant, depth = stack.pop()
        if variant.name in places:
            continue
        below = [child for child in children.get(variant.name, []) if child.name != variant.name]
        places[variant.name] = (depth, rows)
        rows += 0 if below else 1
        stack += [(child, depth + 1) for child in reversed(below)]
    tasks = facts.shared_tasks(study)
    nodes, edges = [], []
    for name, (depth, row) in places.items():
        variant = by_name[name]
        nodes.append(_node(variant, depth, row, by_name, tasks))
        if variant.parent in places:
            edges.append(_edge(variant, by_name[variant.parent], places, by_name, tasks))
    deepest = max((depth for depth, _ in places.values()), default=0)
    return LineageGraph((deepest + 1) * NODE_WIDTH + deepest * GAP + 4, max(1, rows) * ROW - (ROW - NODE_HEIGHT) + 18, nodes, edges)


def _corner(place: tuple[int, int]) -> tuple[int, int]:
    return 2 + place[0] * (NODE_WIDTH + GAP), 2 + place[1] * ROW


def _node(variant: VariantRecord, depth: int, row: int, by_name: dict[str, VariantRecord], tasks: list[str]) -> LineageNode:
    x, y = _corner((depth, row))
    done = facts.was_built(variant, by_name)
    size, bpb = variant.size, facts.mean_bpb(variant, tasks)
    lines = [f"{words.count(size.counted)} · {words.size(size.stored_bytes)}"] if done and size else ["not built"]
    density = words.point(variant.density.params) if variant.density and variant.density.params else ""
    scored = [f"bpb {words.number(bpb)}" if bpb is not None else "", f"density {density}" if density else ""]
    pending = facts.is_pending(variant)
    lines.append(" · ".join(fact for fact in scored if fact) or ("pending" if pending else "no scores" if done else "see failures"))
    kind = "failed" if variant.failures or not done else "base" if not variant.parent else "named" if variant.named else "faint"
    return LineageNode(x, y, words.truncate(variant.name, 22), variant.name, lines, "pending" if pending else kind)


def _edge(
    child: VariantRecord, parent: VariantRecord, places: dict[str, tuple[int, int]], by_name: dict[str, VariantRecord], tasks: list[str]
) -> LineageEdge:
    (from_x, from_y), (to_x, to_y) = _corner(places[parent.name]), _corner(places[child.name])
    start, middle, end = from_x + NODE_WIDTH, from_y + NODE_HEIGHT // 2, to_y + NODE_HEIGHT // 2
    turn = start + 14
    path = f"M{start} {middle}H{turn}V{end}H{to_x - 7}" if end != middle else f"M{start} {middle}H{to_x - 7}"
    done = facts.was_built(child, by_name)
    last = child.steps[-1] if done else None
    effects = _effects(child, parent, tasks) if done and facts.was_built(parent, by_name) else []
    comparison = facts.comparison_with(child, "parent")
    ratio = comparison.headline[0] if comparison else None
    return LineageEdge(
        child.name,
        path,
        turn + 5,
        end,
        words.truncate(words.step_name(last), 22) if last else "not reached",
        effects,
        comparison.headline[1] if comparison and ratio else "",
        f"r {words.point(ratio, 2)} {words.span(ratio, 2)}".strip() if ratio else "",
        not child.named,
    )


def _effects(child: VariantRecord, parent: VariantRecord, tasks: list[str]) -> list[str]:
    effects = []
    if child.size and parent.size and parent.size.counted and parent.size.stored_bytes:
        shrink, store = child.size.counted / parent.size.counted, child.size.stored_bytes / parent.size.stored_bytes
        effects.append(f"N {_factor(shrink)} · bytes {_factor(store)}")
    before, after = facts.mean_bpb(parent, tasks), facts.mean_bpb(child, tasks)
    if before is not None and after is not None:
        effects.append(f"bpb {words.signed(after - before)}")
    return effects


def _factor(value: float) -> str:
    return "same" if abs(value - 1) < 0.005 else words.times(value)
