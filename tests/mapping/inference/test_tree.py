from __future__ import annotations

from ckptaudit.mapping.inference.tree import restore_order
from ckptaudit.mapping.inference.units import Leaf

from .helpers import sides


def nodes_of(tensors):
    side = sides(tensors, tensors)[0]
    return {".".join(node.path): node for node in side.nodes}


BLOCKS = {f"net.blocks.{i}.{name}.weight": (w, w) for i, w in enumerate((4, 4, 8)) for name in ("a", "b")}


def test_nodes_are_the_modules_that_tell_units_apart():
    """The root holds all, and a wrapper is no module of its own."""
    assert set(nodes_of(BLOCKS)) == {"net.blocks.0", "net.blocks.1", "net.blocks.2"}


def test_equal_contents_are_one_class_and_rank_by_their_numbers():
    nodes = nodes_of(BLOCKS)
    first, second, third = (nodes[f"net.blocks.{i}"] for i in range(3))
    assert first.kind == second.kind != third.kind
    assert [(node.rank, node.count) for node in (first, second, third)] == [(0, 2), (1, 2), (0, 1)]


def test_a_list_is_known_by_its_outermost_number():
    node = nodes_of({**{f"up.{i}.block.{k}.weight": (4, i + 1) for i in range(3) for k in "ab"}})["up.1.block"]
    assert (node.number, node.family) == (1, (("up",), "#"))


def test_names_sorted_as_text_get_their_natural_order_back():
    keys = sorted(f"layers.{i}.weight" for i in range(12))
    assert [leaf.key for leaf in restore_order([Leaf(key, ()) for key in keys])] == [
        f"layers.{i}.weight" for i in range(12)
    ]
    given = ["b", "a", "c"]
    assert [leaf.key for leaf in restore_order([Leaf(key, ()) for key in given])] == given


def test_a_norm_named_after_its_sibling_is_anchored_to_it():
    tensors = {"l.0.self_attn.out.weight": (4, 4), "l.0.fc.weight": (4, 4), "l.0.self_attn_layer_norm.weight": (4,)}
    side = sides(tensors, tensors)[0]
    assert side.anchors == {2: 0}
