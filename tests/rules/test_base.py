"""Levels, fingerprints and words of findings."""

import contextlib
import re
from string import Formatter

import pytest

from ckptaudit.errors import FormatError, UsageError
from ckptaudit.outcome import key_of_error
from ckptaudit.rules import RULES, Contract, Finding, Fix, Rule, find_rule
from ckptaudit.rules.base import drop_options

from .support import FIXTURES, diff, found, manifest, net

import rule_hits  # isort: skip

LEVELS = {  # contract a rule breaks: its level under open, partial, strict, exact, resume
    Contract.open: ("error", "error", "error", "error", "error"),
    Contract.partial: ("warning", "error", "error", "error", "error"),
    Contract.strict: ("note", "warning", "error", "error", "error"),
    Contract.exact: ("note", "note", "warning", "error", "error"),
    Contract.resume: ("note", "note", "note", "warning", "error"),
}


def rule(**changes):
    plain = {"code": "CKPT999", "name": "a-rule", "summary": "s", "why": "w", "fix": "f", "messages": {"": "m"}}
    return Rule(**(plain | changes))


@pytest.mark.parametrize("breaks", Contract)
def test_the_level_follows_from_what_is_broken_and_what_is_asked(breaks):
    finding = Finding(rule(breaks=breaks))
    assert tuple(finding.level(contract) for contract in Contract) == LEVELS[breaks]


@pytest.mark.parametrize("level", ["error", "warning", "note"])
def test_no_contract_changes_a_fixed_level(level):
    assert {Finding(rule(fixed=level)).level(contract) for contract in Contract} == {level}


def test_a_finding_may_break_another_contract_than_its_rule():
    finding = Finding(rule(breaks=Contract.strict), breaks=Contract.partial)
    assert finding.level(Contract.partial) == "error"


def test_every_contract_says_what_it_promises():
    assert [contract.promise.partition(",")[0] for contract in Contract][2:] == [
        "load_state_dict(strict=True) returns",
        "strict",
        "exact",
    ]


# Rules -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("known", RULES.values(), ids=lambda rule: rule.code)
def test_a_rule_is_complete(known):
    assert re.fullmatch(r"CKPT\d{3}", known.code)
    assert re.fullmatch(r"[a-z]+(-[a-z]+)*", known.name)
    assert (known.breaks is None) != (known.fixed is None)
    assert known.silent in ("", "yes", "under strict=False")
    assert known.example
    assert set(known.details) <= set(known.messages)
    for sentence in (known.why, known.fix):
        assert sentence.endswith(".")
    for text in (known.summary, *known.messages.values(), *known.details.values()):
        assert not text.removesuffix("...").endswith(".")
    said = " ".join((known.summary, known.why, known.fix, *known.messages.values(), *known.details.values()))
    assert "weights_only=False" not in said
    assert "strict=False" not in known.fix


def test_names_are_unique():
    assert len({known.name for known in RULES.values()}) == len(RULES)


@pytest.mark.parametrize("text", ["CKPT201", "ckpt201", "shape-mismatch", "Shape-Mismatch"])
def test_a_rule_is_found_by_code_and_name(text):
    assert find_rule(text).code == "CKPT201"


@pytest.mark.parametrize(
    ("text", "hint"),
    [("shape-mismach", "ckptaudit explain shape-mismatch"), ("ckpt2O1", "ckptaudit explain CKPT201")],
)
def test_a_misspelt_rule_leads_to_the_closest(text, hint):
    with pytest.raises(UsageError) as caught:
        find_rule(text)
    assert (caught.value.subject, caught.value.reason, caught.value.hint) == (text, "is no rule", hint)


def test_a_text_like_no_rule_leads_to_the_list():
    with pytest.raises(UsageError) as caught:
        find_rule("zzz")
    assert caught.value.hint.endswith("ckptaudit explain")


# Words -----------------------------------------------------------------------------------------------------

# What checks put into a finding's data in cases that no fixture shows.
DATA = {
    "CKPT103": {"checkpoint": "a.", "model": "b.", "wrappers": "module"},
    "CKPT202": {"square": "; 3 of them have the same shape either way, and would load wrong"},
}


def data_of(known):
    """Return the data of the fixture's finding, and the reason that a reader gives."""
    with contextlib.suppress(FormatError):
        findings, _ = rule_hits.findings_of(FIXTURES / "rules" / known.code / "fires")
        [shown, *_] = [graded.finding.data for graded in findings if graded.finding.rule is known]
        return {"reason": "is empty"} | DATA.get(known.code, {}) | dict(shown)
    return {"reason": "is empty"}


CASES = [(known, case) for known in RULES.values() for case in known.messages]
COUNTED = {"count", "s", "v", "tensors", "have", "are", "them"}


@pytest.mark.parametrize(("known", "case"), CASES, ids=lambda value: getattr(value, "code", value) or "plain")
@pytest.mark.parametrize("keys", [("a",), ("a", "b")], ids=["one", "two"])
def test_every_case_can_be_worded(known, case, keys):
    finding = Finding(known, keys, case=case, data=data_of(known))
    text = f"{finding.message}\n{finding.detail}"
    assert "{" not in text
    assert "  " not in text
    wrong = (
        r"\b1 (\w+ )?(tensors|keys|buffers|modules|states|rules)\b|\b2 (\w+ )?(tensor|key|buffer|module|state|rule)\b"
    )
    assert not re.search(wrong, text)
    assert not re.search(r"\b1 \w+ (of \S+ \S+ )?(are|have)\b|\b2 \w+ (of \S+ \S+ )?(is|has)\b", text)


@pytest.mark.parametrize(("known", "case"), CASES, ids=lambda value: getattr(value, "code", value) or "plain")
def test_templates_ask_for_nothing_that_no_check_gives(known, case):
    templates = (known.messages[case], known.details.get(case, ""))
    asked = {name for template in templates for _, name, _, _ in Formatter().parse(template) if name}
    assert asked <= COUNTED | set(data_of(known))


def test_numbers_are_grouped():
    assert Finding(RULES["CKPT105"], data={"total": 1200}).message.endswith("(1,200 in the model)")
    assert Finding(RULES["CKPT101"], tuple(map(str, range(1500)))).message.startswith("1,500 tensors of the model are")


# Fingerprints ----------------------------------------------------------------------------------------------

ROWS = (("fc.weight", "(5, 4)", "(2, 4)"), ("fc.bias", "(5,)", "(2,)"))


def shapes(rows=ROWS, **rest):
    return Finding(RULES["CKPT201"], tuple(row[0] for row in rows), rows=rows, **rest).fingerprint


def test_a_fingerprint_is_twelve_hex_digits_and_never_changes():
    assert shapes() == "07f48ed099c5"


def test_a_fingerprint_depends_on_code_keys_and_values():
    others = [
        shapes((("fc.weight", "(5, 4)", "(3, 4)"), ROWS[1])),
        shapes(ROWS[:1]),
        Finding(RULES["CKPT202"], ("fc.weight", "fc.bias"), rows=ROWS).fingerprint,
    ]
    assert len({shapes(), *others}) == 4


def test_a_fingerprint_does_not_depend_on_order_wording_fixes_or_the_mapping():
    assert shapes(tuple(reversed(ROWS))) == shapes()
    assert shapes(fixes=(Fix("display", "x"),), mapped=True, data={"any": "word"}) == shapes()


def test_a_fingerprint_survives_another_folder_and_another_order(tmp_path):
    prints = set()
    for name, order in (("one", 1), ("two", -1)):
        saved = dict(list(net(fc__weight=(5, 4)).items())[::order])
        path = tmp_path / name / "model.manifest.json"
        path.parent.mkdir()
        manifest(net()).save(path)
        prints.add(found(diff(str(path), manifest(saved)), "CKPT201").fingerprint)
    assert len(prints) == 1


def test_another_global_is_another_finding():
    """Who accepts one class in a file has not accepted the next one."""
    rows = [(("argparse.Namespace",),), (("numpy.dtype",),)]
    assert len({Finding(RULES["CKPT004"], rows=row).fingerprint for row in rows}) == 2


def test_the_json_form_has_the_words_and_the_evidence():
    fixes = (Fix("unsafe", "--drop fc.bias", "x"),)
    finding = Finding(RULES["CKPT201"], ("fc.bias",), rows=ROWS[1:], fixes=fixes, mapped=True)
    assert finding.to_json("error") == {
        "code": "CKPT201",
        "name": "shape-mismatch",
        "level": "error",
        "message": "1 tensor with another shape in the model",
        "keys": ["fc.bias"],
        "data": {"rows": [["fc.bias", "(5,)", "(2,)"]]},
        "fixes": [{"safety": "unsafe", "do": "--drop fc.bias", "then": "x"}],
        "with_mapping": True,
        "fingerprint": finding.fingerprint,
    }


# Helpers ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("message", "key"),
    [
        ("size mismatch for a.b: copying a param with shape torch.Size([1]) from checkpoint, ...", "a.b"),
        ('While copying the parameter named "a.b", whose dimensions in the model are ...', "a.b"),
        ("Unexpected running stats buffer(s)", None),
    ],
)
def test_torchs_messages_name_their_keys(message, key):
    assert key_of_error(message) == key


@pytest.mark.parametrize(
    ("keys", "others", "options"),
    [
        (["fc.weight", "fc.bias"], ["conv.weight"], "--drop 'fc.*'"),
        (["fc.weight"], ["fc.bias"], "--drop fc.weight"),
        (["a*b", "c{d", "it's"], [], "--drop 'a\\*b' --drop 'c\\{d' --drop 'it'\"'\"'s'"),
        (["m*.a", "m*.b"], ["mm.a"], "--drop 'm\\*.*'"),
        (["m.*"], ["m.a"], "--drop 'm.\\*'"),
    ],
)
def test_drop_options_name_exactly_these_keys(keys, others, options):
    assert drop_options(keys, [*keys, *others]) == options
