"""Figure 1: the workflow as Snakemake plans it."""

import networkx as nx
import numpy as np
import pydot
from matplotlib import pyplot as plt
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from busflow.errors import BusflowError
from busflow.figures.style import INK, MUTED

# One box for the rules that differ only in the table or figure they make.
FAMILIES = {"tabulate": "make tables", "draw": "draw figures"}
PLUMBING = {"record_config", "tables", "figures"}  # rules that carry no data
ROOMS = {
    "classification": "#dbe9f6",
    "detection": "#fbe3d6",
    "segmentation": "#e2f0d9",
    **dict.fromkeys(("tables", "figures", "leakage", "audit"), "#eee6f5"),
}
DATA = "#f4f1e8"
BOX = (1.5, 0.36)  # width and height of a box, inches
STEP = (1.8, 0.62)  # between the centres of neighbours, inches


def fig1(dot: str) -> Figure:
    """Draw the rule graph that ``snakemake --rulegraph dot`` prints; data flows downwards.

    Raises BusflowError when the text holds no graph.
    """
    graph = rule_graph(dot)
    places = _places(graph)
    xs, ys = zip(*places.values(), strict=True)
    left, right = min(xs) - 0.7 * STEP[0], max(xs) + 0.7 * STEP[0]
    low, high = min(ys) - 0.6 * STEP[1], max(ys) + 0.6 * STEP[1]
    figure, axes = plt.subplots(figsize=(right - left, high - low))
    for start, end in graph.edges:
        (x0, y0), (x1, y1) = places[start], places[end]
        outwards = -0.3 if x0 + x1 > 0 else 0.3  # around the boxes that a longer edge would cross
        skips = y1 - y0 > 1.5 * STEP[1]
        axes.annotate(
            "",
            xy=(x1, y1 - BOX[1] / 2),
            xytext=(x0, y0 + BOX[1] / 2),
            arrowprops={
                "arrowstyle": "-|>",
                "color": "#b0b0b0",
                "lw": 1.1,
                "connectionstyle": f"arc3,rad={outwards if skips else 0}",
                "shrinkA": 0,
                "shrinkB": 0,
            },
            zorder=1,
        )
    for rule, (x, y) in places.items():
        box = FancyBboxPatch(
            (x - BOX[0] / 2, y - BOX[1] / 2),
            *BOX,
            boxstyle="round,pad=0,rounding_size=0.08",
            facecolor=_colour(rule),
            edgecolor=MUTED,
            lw=0.8,
            zorder=2,
        )
        axes.add_patch(box)
        axes.text(x, y, rule.replace("_", " "), ha="center", va="center", fontsize=8, color=INK, zorder=3)
    axes.set(xlim=(left, right), ylim=(high, low))
    axes.axis("off")
    return figure


def rule_graph(dot: str) -> nx.DiGraph:
    """Rules and their order; families of rules and shortcuts (edges that a longer path implies) merged."""
    parsed = pydot.graph_from_dot_data(dot[dot.find("digraph") :]) if "digraph" in dot else None
    if not parsed:
        raise BusflowError("the rule graph on standard input is empty; see the log of the rule for why")
    names = {
        node.get_name(): node.get_label().strip('"').split("\\n")[0]
        for node in parsed[0].get_nodes()
        if node.get_label() and node.get_label().strip('"') not in PLUMBING
    }
    merged = {node: FAMILIES.get(name.split("_")[0], name) for node, name in names.items()}
    graph = nx.DiGraph()
    graph.add_nodes_from(merged.values())
    for edge in parsed[0].get_edges():
        start, end = merged.get(edge.get_source()), merged.get(edge.get_destination())
        if start and end and start != end:
            graph.add_edge(start, end)
    reduced = nx.transitive_reduction(graph)
    ordered = nx.DiGraph()  # Snakemake prints the same graph in another order each time
    ordered.add_nodes_from(sorted(reduced.nodes))
    ordered.add_edges_from(sorted(reduced.edges))
    return ordered


def _places(graph: nx.DiGraph) -> dict[str, tuple[float, float]]:
    """Centres of the boxes: as high as their inputs allow, sources right above their first use."""
    depth = {rule: i for i, rules in enumerate(nx.topological_generations(graph)) for rule in rules}
    for rule in [rule for rule in graph if graph.in_degree(rule) == 0 and graph.out_degree(rule)]:
        depth[rule] = min(depth[after] for after in graph.successors(rule)) - 1
    places: dict[str, tuple[float, float]] = {}
    for layer in sorted(set(depth.values())):
        above = {
            rule: np.mean([places[before][0] for before in graph.predecessors(rule)] or [0])
            for rule in graph
            if depth[rule] == layer
        }
        for i, rule in enumerate(sorted(above, key=lambda rule: (above[rule], rule))):
            places[rule] = ((i - (len(above) - 1) / 2) * STEP[0], layer * STEP[1])
    return places


def _colour(rule: str) -> str:
    return next((colour for word, colour in ROOMS.items() if word in rule), DATA)
