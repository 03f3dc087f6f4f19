"""What was said of a load against what a real one did: every difference has its row, and nothing else has."""

from __future__ import annotations

import pytest

from ckptaudit.compare.hearing import Hearing, hear
from ckptaudit.model.witness import RealLoad
from ckptaudit.model.witness import Testimony as Word
from ckptaudit.outcome import LoadOutcome
from ckptaudit.records import replace

FITS = LoadOutcome((), (), (), 3, "torch")
DID = RealLoad(FITS, 3)
SIZE = "size mismatch for fc.bias: copying a param with shape torch.Size([5]) from checkpoint, ..."
TORCHS = "RuntimeError: Error(s) in loading state_dict for Net:"


def heard(said, *loads, predicted=(), **rest):
    return hear(Word("torch.load", loads, **rest), said, predicted or said)


def test_a_load_that_did_as_was_said():
    hearing = heard([FITS], DID)
    assert (hearing.agrees, hearing.disagreements, hearing.keys, hearing.prediction) == (True, (), (), True)
    assert hearing.to_json() == {
        "agrees": True,
        "reader": "torch.load",
        "note": "",
        "unheard": "",
        "loads": 1,
        "disagreements": [],
        "prediction_agrees": True,
    }


def outcome(**changes):
    return replace(FITS, **changes)


def fails(**changes):
    """A load whose lists or messages make strict=True raise."""
    return replace(DID, strict_raised=TORCHS, **changes)


@pytest.mark.parametrize(
    ("said", "did", "rows", "keys"),
    [
        (
            FITS,
            replace(DID, raised="ValueError: no", strict_raised="ValueError: no"),
            [("strict=False", "returns", "raises ValueError: no"), ("strict=True", "returns", "raises ValueError: no")],
            (),
        ),
        (  # both end, and in another way
            outcome(errors=(SIZE,)),
            replace(DID, raised="ValueError: no", strict_raised="ValueError: no"),
            [("strict=False", "raises", "raises ValueError: no")],
            (),
        ),
        (
            outcome(missing_keys=("a",)),
            DID,
            [("strict=True", "raises", "returns"), ("missing_keys", "a", "none of them")],
            ("a",),
        ),
        (
            outcome(unexpected_keys=("a", "b")),
            fails(outcome=outcome(unexpected_keys=("b", "c"))),
            [("unexpected_keys", "a", "c")],
            ("a", "c"),
        ),
        (
            FITS,
            fails(outcome=outcome(errors=(SIZE,))),
            [
                ("strict=False", "returns", "raises RuntimeError"),
                ("strict=True", "returns", f"raises {TORCHS}"),
                ("refused keys", "none of them", "fc.bias"),
            ],
            ("fc.bias",),
        ),
        (outcome(loaded=4), DID, [("loaded", "4", "3")], ()),
        (outcome(loaded=4), replace(DID, at_most=4), [], ()),
        (
            FITS,
            replace(DID, altered=("a", "b", "c", "d")),
            [("values", "the checkpoint's", "others in a, b, c and 1 more")],
            ("a", "b", "c", "d"),
        ),
        (FITS, replace(DID, touched=("a",)), [("initial values", "kept", "others in a")], ("a",)),
        (
            outcome(errors=("own message",)),
            fails(outcome=outcome(errors=("another",))),
            [("messages", "own message", "another")],
            (),
        ),
    ],
)
def test_every_difference_has_its_row(said, did, rows, keys):
    hearing = heard([said], did)
    assert (list(hearing.disagreements), hearing.keys, hearing.agrees) == (rows, keys, not rows)
    assert hearing.opinions == ((said, did),)


def test_the_load_with_the_mapping_has_rows_of_its_own():
    hearing = heard([FITS, FITS], DID, replace(DID, outcome=outcome(loaded=2), at_most=2))
    assert hearing.disagreements == (("loaded, with the mapping", "3", "2"),)
    assert heard([FITS, outcome(loaded=9)], DID).agrees  # no mapping, so both were said of one load


def test_a_file_that_two_readers_see_differently():
    hearing = heard([FITS], DID, misread=("a",))
    assert hearing.disagreements == (("the file", "as inspect shows it", "torch.load reads a otherwise"),)
    assert hearing.keys == ("a",)


def test_a_prediction_is_compared_too_and_is_no_disagreement_of_the_report():
    hearing = heard([FITS], DID, predicted=[replace(FITS, missing_keys=("a",), judge="prediction")])
    assert (hearing.agrees, hearing.prediction) == (True, False)
    worded = replace(FITS, errors=("size mismatch for fc.bias: in short",), judge="prediction")
    did = fails(outcome=outcome(errors=(SIZE,)))
    assert heard([did.outcome], did, predicted=[worded]).prediction


def test_no_load_no_agreement():
    hearing = hear("it is not to be had", [FITS], [FITS])
    assert hearing == Hearing(unheard="it is not to be had")
    assert not hearing.agrees
    assert hearing.to_json()["reader"] is None
