from __future__ import annotations

from ckptaudit.mapping.inference.folding import SHORTEST, fold, unfold
from ckptaudit.mapping.inference.outcome import Evidence
from ckptaudit.mapping.inference.units import gather

from .helpers import copies, transformer

SURE = Evidence(1.0, "")


def stack(name, depth, widths=None):
    widths = widths or [4] * depth
    return {f"{name}.{i}.{leaf}.weight": (w, w) for i, w in enumerate(widths) for leaf in ("a", "b")}


def folded(source, target):
    return fold(gather(source.items()), gather(target.items()))


def test_a_run_of_equal_blocks_is_folded_to_its_ends():
    some, _, runs, _ = folded(stack("h", 12), stack("layers", 12))
    assert [".".join(unit.path) for unit in some if unit.path[-1] == "a"] == ["h.0.a", "h.1.a", "h.10.a", "h.11.a"]
    assert [run.segments for run in runs] == [tuple(map(str, range(12)))]


def test_runs_of_other_lengths_or_contents_stay_whole():
    for other in (stack("layers", 11), stack("layers", 12, [5] * 12), stack("layers", SHORTEST - 1)):
        some, _, _, runs = folded(stack("h", 12), other)
        assert len(some) == 24
        assert runs == []


def test_blocks_of_changing_width_are_no_run():
    assert folded(stack("h", 12, range(2, 14)), stack("h", 12, range(2, 14)))[2] == []


def pairs(change, depth=12):
    """The pairs that stand for all: target member -> source member."""
    return {
        ("t", str(change(k)), leaf): (("s", str(k), leaf), SURE) for k in (0, 1, depth - 2, depth - 1) for leaf in "ab"
    }


def test_members_follow_their_representatives_in_either_direction():
    _, _, runs_s, runs_t = folded(stack("s", 12), stack("t", 12))
    straight = unfold(pairs(lambda k: k), runs_s, runs_t)
    assert {key: path for key, (path, _) in straight.items()} == {
        ("t", str(k), x): ("s", str(k), x) for k in range(12) for x in "ab"
    }
    back = unfold(pairs(lambda k: 11 - k), runs_s, runs_t)
    assert {key: path for key, (path, _) in back.items()} == {
        ("t", str(k), x): ("s", str(11 - k), x) for k in range(12) for x in "ab"
    }


def test_nothing_is_extrapolated_from_representatives_that_disagree():
    _, _, runs_s, runs_t = folded(stack("s", 12), stack("t", 12))
    found = unfold(pairs({0: 0, 1: 1, 10: 11, 11: 10}.get), runs_s, runs_t)
    assert len(found) == 8


def test_the_least_sure_representative_speaks_for_all():
    _, _, runs_s, runs_t = folded(stack("s", 12), stack("t", 12))
    known = pairs(lambda k: k)
    known["t", "1", "a"] = (("s", "1", "a"), Evidence(0.6, "doubt"))
    found = unfold(known, runs_s, runs_t)
    assert found["t", "7", "a"][1].confidence == 0.6
    assert found["t", "7", "b"][1].confidence == 1.0


def test_runs_inside_of_runs():
    source = {f"layers.{i}.experts.{e}.w.weight": (8, 4) for i in range(9) for e in range(7)}
    target = {key.replace("layers", "h").replace("experts", "mlp"): shape for key, shape in source.items()}
    some, *_ = folded(source, target)
    assert len(some) == 16
    assert copies(source, target) == {key.replace("layers", "h").replace("experts", "mlp"): key for key in source}


def test_folding_changes_no_answer():
    """A block more on each side, of its own width, keeps the lists from being folded alike."""
    source, target = transformer(depth=8), transformer("net.", "layers", depth=8)
    whole = copies(source, target)
    apart = copies({**source, "extra.0.weight": (1, 1)}, {**target, "extra.0.weight": (1, 1)})
    assert whole.items() <= apart.items()
