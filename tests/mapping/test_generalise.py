"""Rules out of assignments: what they do, held against torch, and how few they are."""

from __future__ import annotations

import re
from collections import OrderedDict
from statistics import median

import pytest
import torch
from corpus import CASES, FOLDER, manifest, read, truth

from ckptaudit.manifest import Manifest, TensorSpec
from ckptaudit.mapping.assignment import Assignment, Assignments
from ckptaudit.mapping.execute import execute
from ckptaudit.mapping.generalise import generalise
from ckptaudit.mapping.inference import infer
from ckptaudit.mapping.mapping import KeyMapping

BIG = 1 << 21  # values; the sources of larger operations are compared by shape alone


STEPS = {
    "copy": lambda _n, x: x,
    "transpose": lambda n, x: x.transpose(*(n or (0, 1))),
    "permute": lambda n, x: x.permute(n),
    "reshape": lambda n, x: x.reshape(n),
    "chunk": lambda n, x: x.chunk(n[2], n[0])[n[1]],
    "slice": lambda n, x: x.narrow(n[0], n[1], n[2] - n[1]),
    "concat": lambda n, *x: torch.cat(x, n[0]),
    "stack": lambda n, *x: torch.stack(x, n[0]),
}


def carry_out(op, tensors):
    """Do what an assignment says, by torch, step by step as its text says it."""
    for step in op.split("|"):
        word, _, rest = step.partition("(")
        tensors = [STEPS[word]([int(number) for number in re.findall(r"-?\d+", rest)], *tensors)]
    return tensors[0]


def check(mapping, assignments, source, target):
    """Hold the account of a mapping against assignments, one by one."""
    mapped = mapping.apply(source)
    assert not mapped.collisions
    assert not mapped.unused
    given = {key for key in mapped.manifest.tensors if key in target}
    assert given == {each.target for each in assignments.assigned}
    numbered = {}
    for each in assignments.assigned:
        recipe = mapped.recipes.get(each.target)
        if recipe is None:
            assert ((mapped.origin[each.target],), "copy") == (each.sources, each.op)
            continue
        assert recipe.sources == each.sources
        device = "meta" if sum(source[key].numel for key in each.sources) > BIG else "cpu"
        for key in each.sources:
            if key not in numbered:
                values = torch.arange(source[key].numel, dtype=torch.int32, device=device)
                numbered[key] = values.reshape(source[key].shape) + len(numbered)
        tensors = [numbered[key] for key in each.sources]
        made, wanted = execute(recipe.op, tensors)[recipe.output], carry_out(each.op, tensors)
        assert made.shape == wanted.shape
        assert device == "meta" or torch.equal(made, wanted)
    for key in assignments.ambiguous:
        assert not mapped.expects(key)
    assert all(mapped.expects(key) for key in assignments.uninitialised)
    return mapped


@pytest.mark.skipif(not CASES, reason=f"the mapping corpus is not at {FOLDER}")
@pytest.mark.parametrize("name", CASES)
def test_rules_do_what_is_true_of_a_case(name):
    case = read(name)
    source, target = manifest(case["source"]), manifest(case["target"])
    assignments = truth(case)
    mapping = generalise(assignments, source, target)
    check(mapping, assignments, source, target)
    assert KeyMapping.parse(mapping.to_json()) == mapping
    assert len(mapping.rules) <= 60


@pytest.mark.skipif(not CASES, reason=f"the mapping corpus is not at {FOLDER}")
@pytest.mark.parametrize("name", CASES)
def test_rules_do_what_is_inferred_of_a_case(name):
    case = read(name)
    source, target = manifest(case["source"]), manifest(case["target"])
    assignments = infer(source, target)
    mapping = generalise(assignments, source, target)
    check(mapping, assignments, source, target)
    assert KeyMapping.parse(mapping.to_json()) == mapping


@pytest.mark.skipif(not CASES, reason=f"the mapping corpus is not at {FOLDER}")
def test_rules_are_few():
    counts = []
    for name in CASES[::8]:
        case = read(name)
        counts.append(len(generalise(truth(case), manifest(case["source"]), manifest(case["target"])).rules))
    assert median(counts) <= 8


# By hand -------------------------------------------------------------------------------------------------------


def of(**shapes):
    return Manifest(OrderedDict((key, TensorSpec(shape, "float32")) for key, shape in shapes.items()))


def plain(names, shape=(4, 4)):
    return of(**dict.fromkeys(names, shape))


def pairs(names):
    return Assignments(tuple(Assignment(target, (source,)) for source, target in names.items()))


def rules(assignments, source, target):
    mapping = generalise(assignments, source, target)
    check(mapping, assignments, source, target)
    return mapping.to_json()


def renamed(names):
    return rules(pairs(names), plain(names), plain(names.values()))


def test_names_that_stay_need_no_rule():
    assert renamed({"a.weight": "a.weight", "b.weight": "b.weight"}) == []


def test_a_wrapper_is_one_rule():
    assert renamed({f"module.{name}": name for name in ("a.weight", "a.bias", "b.0.weight")}) == ["module.* -> *"]


def test_a_new_wrapper_is_one_rule():
    assert renamed({name: f"net.{name}" for name in ("a.weight", "a.bias", "b.0.weight")}) == ["* -> net.*"]


def test_blocks_of_another_name_are_one_rule():
    names = {f"encoder.layer.{i}.{leaf}": f"blocks.{i}.{leaf}" for i in range(12) for leaf in ("a.weight", "b.weight")}
    assert renamed(names) == ["encoder.layer.* -> blocks.*"]


def test_blocks_that_count_from_one_are_one_rule():
    names = {f"layer{i + 1}.{j}.w": f"stages.{i}.{j}.w" for i in range(4) for j in range(3)}
    assert renamed(names) == ["layer{i+1}.* -> stages.{i}.*"]


def test_blocks_after_a_new_one_move_up_and_those_before_it_stay():
    names = {f"layers.{i}.w": f"layers.{i + (i > 2)}.w" for i in range(6)}
    assert renamed(names) == ["layers.{i+3}.* -> layers.{i+4}.*"]


def test_names_in_a_ring_change_places():
    found = renamed({"a.w": "b.w", "b.w": "a.w", "c.w": "c.w"})
    assert len(found) <= 3


def test_two_stacks_of_equal_blocks_share_the_rules_for_what_is_inside():
    inner = {"attention.self.query": "attn.q", "attention.self.key": "attn.k", "attention.self.value": "attn.v"}
    names = {
        f"{side}.layer.{i}.{a}.weight": f"{side[:3]}.{i}.{b}.weight"
        for side in ("encoder", "decoder")
        for i in range(4)
        for a, b in inner.items()
    }
    assert len(renamed(names)) == 5


def test_every_special_character_of_a_key_is_escaped():
    names = {"a*b.w": "x{i}.w", "c d.w": "y,z.w", "e=f.w": "g->h.w", "\\.w": "#.w"}
    renamed(names)


def test_fused_projections_with_their_biases_are_one_rule():
    shapes = {f"h.{i}.qkv.{leaf}": shape for i in range(3) for leaf, shape in (("weight", (12, 4)), ("bias", (12,)))}
    source = of(**shapes)
    said = Assignments(
        tuple(
            Assignment(key.replace("qkv", part), (key,), f"chunk(0,{index},3)")
            for key in source
            for index, part in enumerate("qkv")
        )
    )
    target = of(**{each.target: (4, *source[each.sources[0]].shape[1:]) for each in said.assigned})
    assert rules(said, source, target) == ["split *.qkv.* -> *.q.*, *.k.*, *.v.*"]


def test_parts_of_a_tensor_without_the_others():
    source = of(w=(12, 4))
    said = Assignments((Assignment("q", ("w",), "chunk(0,0,3)"), Assignment("v", ("w",), "chunk(0,2,3)")))
    assert rules(said, source, of(q=(4, 4), v=(4, 4))) == [
        "part w -> q dim=0 index=0 parts=3",
        "part w -> v dim=0 index=2 parts=3",
    ]


def test_slices_of_different_length_that_make_up_a_tensor_are_a_split():
    source = of(w=(12, 4))
    said = Assignments((Assignment("b", ("w",), "slice(0,8,12)"), Assignment("a", ("w",), "slice(0,0,8)")))
    assert rules(said, source, of(a=(8, 4), b=(4, 4))) == ["split w -> a, b sizes=8,4"]


def test_a_tensor_that_is_copied_and_turned():
    source = of(wte=(10, 4))
    said = Assignments((Assignment("E", ("wte",)), Assignment("U", ("wte",), "transpose")))
    assert sorted(rules(said, source, of(E=(10, 4), U=(4, 10)))) == ["copy wte -> E", "transpose wte -> U"]


def test_experts_are_stacked_by_one_rule():
    source = of(**{f"layers.{i}.experts.{e}.w": (4, 2) for i in range(2) for e in range(8)})
    said = Assignments(
        tuple(
            Assignment(f"layers.{i}.experts.w", tuple(f"layers.{i}.experts.{e}.w" for e in range(8)), "stack(0)")
            for i in range(2)
        )
    )
    target = of(**{f"layers.{i}.experts.w": (8, 4, 2) for i in range(2)})
    assert rules(said, source, target) == ["stack *.experts.{e}.* -> *.experts.*"]


def test_a_second_backbone_is_one_tie():
    names = [f"{i}.w" for i in range(4)]
    said = Assignments(tuple(Assignment(f"{side}.{name}", (name,)) for side in ("left", "right") for name in names))
    target = plain([each.target for each in said.assigned])
    assert rules(said, plain(names), target) == ["* -> left.*", "tie right.* = left.*"]


def test_what_is_dropped_and_left_at_init_is_said_by_whole_modules():
    source, target = plain(["a.w", "fc.0.w", "fc.1.w", "fc.1.b"]), plain(["a.w", "head.w", "head.b"])
    said = Assignments((Assignment("a.w", ("a.w",)),), ("head.w", "head.b"), ("fc.0.w", "fc.1.w", "fc.1.b"))
    assert rules(said, source, target) == ["drop fc.*", "expect_missing head.*"]


def test_what_has_nothing_in_common_is_left_out_as_a_whole():
    source, target = plain(["a.w", "b.w"]), plain(["x.w", "y.b"])
    assert rules(Assignments((), ("x.w", "y.b"), ("a.w", "b.w")), source, target) == ["drop *", "expect_missing *"]


def test_a_key_that_nobody_speaks_of_is_not_loaded_because_it_has_the_name():
    source, target = plain(["a.w", "b.w"]), plain(["a.w", "b.w"])
    said = Assignments((Assignment("a.w", ("a.w",)),), ambiguous=("b.w",))
    assert rules(said, source, target) == ["drop b.w"]


def test_an_ambiguous_tensor_stays_missing_and_its_rivals_unexpected():
    source, target = plain(["m.a.w", "m.x.w", "m.y.w"]), plain(["a.w", "z.w"])
    said = Assignments((Assignment("a.w", ("m.a.w",)),), ambiguous=("z.w",))
    mapped = generalise(said, source, target).apply(source)
    assert "z.w" not in mapped.manifest
    assert len(mapped.manifest) == 3
