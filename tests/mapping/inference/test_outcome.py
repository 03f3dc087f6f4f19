from __future__ import annotations

from itertools import pairwise

from ckptaudit.mapping.assignment import CONFIDENT
from ckptaudit.mapping.inference import infer
from ckptaudit.mapping.inference.outcome import LEAST, confidence_of

from .helpers import manifest

LEADS = [-1.0, -0.3, 0.0, 0.2, 0.5, 0.8, 1.2, 2.0, 3.0]


def test_a_greater_lead_is_never_less_sure():
    for fixed in LEADS:
        assert all(confidence_of(a, fixed) <= confidence_of(b, fixed) for a, b in pairwise(LEADS))
        assert all(confidence_of(fixed, a) <= confidence_of(fixed, b) for a, b in pairwise(LEADS))


def test_no_lead_without_order_is_confident_or_even_said():
    assert all(confidence_of(lead, 0.0) < CONFIDENT for lead in LEADS)
    assert all(confidence_of(lead, -0.5) < LEAST for lead in LEADS)


def test_an_unused_tensor_of_the_shape_keeps_a_key_open():
    found = infer(
        manifest({"a.weight": (2, 3), "b.weight": (4, 4)}), manifest({"a.weight": (2, 3), "z.q.weight": (5, 5)})
    )
    assert found.uninitialised == ("z.q.weight",)
    assert found.dropped == ("b.weight",)


def test_lists_follow_the_order_of_their_side():
    source = {f"{c}.weight": (i + 2, 3) for i, c in enumerate("dcba")}
    target = {f"net.{c}.weight": (i + 2, 3) for i, c in enumerate("dcba")} | {
        "new.y.weight": (9, 9),
        "new.x.weight": (8, 8),
    }
    found = infer(manifest(source | {"old.z.weight": (1, 9)}), manifest(target))
    assert [one.target for one in found.assigned] == [f"net.{c}.weight" for c in "dcba"]
    assert found.uninitialised == ("new.y.weight", "new.x.weight")
    assert found.dropped == ("old.z.weight",)
