"""Figure 1: what becomes of the rule graph."""

import networkx as nx
import pytest

from busflow.errors import BusflowError
from busflow.figures.workflow import fig1, rule_graph

DOT = """Some line before the graph
digraph snakemake_dag {
    graph[bgcolor=white, margin=0];
    node[shape=box, style=rounded];
    edge[penwidth=2, color=grey];
    0[label = "tables", color = "0.54 0.6 0.85", style="rounded"];
    1[label = "tabulate_table1", color = "0.58 0.6 0.85", style="rounded"];
    2[label = "tabulate_table2", color = "0.58 0.6 0.85", style="rounded"];
    3[label = "build_index", color = "0.02 0.6 0.85", style="rounded"];
    4[label = "fetch_archive", color = "0.02 0.6 0.85", style="rounded"];
    5[label = "record_config", color = "0.02 0.6 0.85", style="rounded"];
    1 -> 0
    2 -> 0
    3 -> 1
    3 -> 2
    4 -> 3
    4 -> 1
    5 -> 0
}
"""


def test_families_are_one_box_and_shortcuts_are_left_out():
    graph = rule_graph(DOT)
    assert set(graph.edges) == {("fetch_archive", "build_index"), ("build_index", "make tables")}


def test_every_rule_has_a_box_below_its_inputs():
    figure = fig1(DOT)
    heights = {text.get_text(): text.get_position()[1] for text in figure.axes[0].texts if text.get_text()}
    assert list(heights) == ["fetch archive", "build index", "make tables"]
    assert heights["fetch archive"] < heights["build index"] < heights["make tables"]
    assert nx.is_directed_acyclic_graph(rule_graph(DOT))


def test_an_empty_graph_is_an_error():
    with pytest.raises(BusflowError, match="rule graph on standard input is empty"):
        rule_graph("")
