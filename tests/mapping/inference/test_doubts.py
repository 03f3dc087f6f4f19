"""What cannot be known is not said, or not with confidence."""

from __future__ import annotations

from ckptaudit.mapping.assignment import CONFIDENT
from ckptaudit.mapping.inference import infer

from .helpers import manifest


def confidences(source, target):
    found = infer(manifest(source), manifest(target))
    return {one.target: one.confidence for one in found.assigned}, set(found.ambiguous)


def language_model(attention, mlp, extra=()):
    tensors = {"embed.weight": (1000, 16), **dict(extra)}
    for i in range(4):
        tensors |= {f"layers.{i}.{attention}.{c}_proj.weight": (16, 16) for c in "qkvo"}
        tensors |= {f"layers.{i}.{mlp}.gate.weight": (32, 16), f"layers.{i}.{mlp}.up.weight": (32, 16)}
    return tensors


def test_rotary_projections_of_another_library_stay_open():
    known, open_ = confidences(language_model("self_attn", "mlp"), language_model("attn", "feed_forward"))
    assert {key for key in open_ if "q_proj" in key or "k_proj" in key} == open_ and len(open_) == 8
    assert known["layers.2.attn.v_proj.weight"] >= CONFIDENT


def test_the_same_module_has_the_same_rows():
    source = language_model("self_attn", "mlp")
    known, open_ = confidences(source, {f"model.{key}": shape for key, shape in source.items()})
    assert not open_ and min(known.values()) >= CONFIDENT


def test_a_query_without_a_weight_is_judged_by_what_it_has():
    source = {"gate.weight": (8, 4), "attn.q.bias": (4,)}
    known, open_ = confidences(source, {"gate.weight": (8, 4), "self_attn.query.bias": (4,)})
    assert "self_attn.query.bias" in open_ and known["gate.weight"] >= CONFIDENT


def test_a_table_of_positions_means_no_rotation():
    positions = [("embed_positions.weight", (50, 16))]
    _, open_ = confidences(language_model("self_attn", "mlp", positions), language_model("attn", "mlp", positions))
    assert not open_


def siblings(parent, names):
    return {f"{parent}.0.{name}.weight": (4, 4) for name in names}


def test_an_equal_name_among_siblings_that_were_renamed_may_be_chance():
    known, _ = confidences(siblings("trunk", ("bam", "bet", "bis")), siblings("kin", ("los", "bep", "bet")))
    assert all(confidence < CONFIDENT for confidence in known.values())


def test_equal_names_of_most_siblings_are_none():
    known, _ = confidences(siblings("trunk", ("bam", "bet", "bis")), siblings("kin", ("bis", "los", "bet")))
    assert known["kin.0.bet.weight"] >= CONFIDENT


def test_a_word_of_the_field_is_no_chance():
    known, _ = confidences(siblings("trunk", ("query", "bis")), siblings("kin", ("q", "los")))
    assert known["kin.0.q.weight"] >= CONFIDENT


def fusion(name, numbers):
    return {
        f"head.{name.format(n)}.{leaf}.weight": shape
        for n in numbers
        for leaf, shape in (("conv1", (8, 8, 3, 3)), ("out", (8, 8, 1, 1)))
    }


def test_a_renumbered_list_of_equal_members_may_run_either_way():
    known, open_ = confidences(fusion("refine{}", range(1, 5)), fusion("layers.{}", range(4)))
    assert known == {} and len(open_) == 8


def test_the_same_numbers_are_the_same_members():
    known, open_ = confidences(fusion("refine{}", range(4)), fusion("layers.{}", range(4)))
    assert not open_ and min(known.values()) >= CONFIDENT


def test_members_of_other_shapes_show_the_direction():
    widths = (8, 16, 32, 32)
    source = {f"up.{i}.{leaf}.weight": (w, w) for i, w in enumerate(widths) for leaf in ("a", "b")}
    target = {f"stages.{3 - i}.{leaf}.weight": (w, w) for i, w in enumerate(widths) for leaf in ("a", "b")}
    found = {one.target: one.sources[0] for one in infer(manifest(source), manifest(target)).assigned}
    assert found["stages.3.a.weight"] == "up.0.a.weight"
    assert all(found.get(f"stages.{3 - i}.a.weight", f"up.{i}.a.weight") == f"up.{i}.a.weight" for i in range(4))


def test_members_of_a_list_that_change_places_are_doubtful():
    def model(name, numbers, widths=(4, 8, 8)):
        tensors = {}
        for n, width in zip(numbers, widths, strict=True):
            tensors[f"{name}.{n}.down.weight"] = (width, width)
            tensors |= {f"{name}.{n}.fc{k}.weight": (width, 3 + n) for k in range(3)}
        return tensors

    found = infer(manifest(model("blocks", (0, 1, 2))), manifest(model("stages", (1, 2, 3))))
    for one in found.assigned:
        if "down" in one.target and one.confidence >= CONFIDENT:
            assert int(one.target.split(".")[1]) == int(one.sources[0].split(".")[1]) + 1


def test_a_renamed_fused_projection_of_uneven_parts_is_doubtful():
    source = {"h.0.attn.qkv.weight": (20, 8), "h.0.attn.o.weight": (8, 8)}
    target = {"h.0.attn.query_key_value.weight": (20, 8), "h.0.attn.o.weight": (8, 8)}
    known, _ = confidences(source, target)
    assert 0.5 < known["h.0.attn.query_key_value.weight"] < CONFIDENT
    known, _ = confidences(source, source)
    assert min(known.values()) >= CONFIDENT
