"""Mappings as TOML files: read, written, and the line of every fault."""

import sys
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import any_rule

from ckptaudit.errors import UsageError
from ckptaudit.mapping.mapping import KeyMapping
from ckptaudit.mapping.toml import rules_of

TEXT = r"""# from the old trainer
[[rule]]
rename = "module.* -> *"

[[rule]]
strip_wrappers = true

[[rule]]
strip_wrappers = ["_orig_mod"]

[[ rule ]]  # heads
drop = 'fc\,.*'

[[rule]]
split = "*.qkv.weight -> *.q.weight, *.k.weight, *.v.weight"
dim = 1
sizes = [4, 2, 2]

[[rule]]
reshape = "fc2.weight"
shape = [10, -1]

[[rule]]
rope_permute = "*.q.weight"
heads = 4
inverse = true

[[rule]]
resample_pos_embed = "pos"
size = "2x3"

[[rule]]
cast = "*"
dtype = "float16"

[[rule]]
tie = "lm_head.weight = embed.weight"
"""
LINES = [
    "module.* -> *",
    "strip_wrappers",
    "strip_wrappers _orig_mod",
    r"drop fc\,.*",
    "split *.qkv.weight -> *.q.weight, *.k.weight, *.v.weight dim=1 sizes=4,2,2",
    "reshape fc2.weight shape=10x-1",
    "rope_permute *.q.weight heads=4 inverse=true",
    "resample_pos_embed pos size=2x3",
    "cast * dtype=float16",
    "tie lm_head.weight = embed.weight",
]


@pytest.fixture(autouse=True)
def _here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def written(text, name="m.toml"):
    Path(name).write_text(text)
    return name


def test_a_file_says_the_same_as_the_lines():
    assert KeyMapping.load(written(TEXT)) == KeyMapping.parse(LINES)
    assert KeyMapping.load(Path("m.toml")) == KeyMapping.parse(LINES)


def test_a_mapping_is_written_as_it_is_read():
    mapping = KeyMapping.parse(LINES)
    assert mapping.to_toml().splitlines()[:9] == [
        "[[rule]]",
        'rename = "module.* -> *"',
        "",
        "[[rule]]",
        "strip_wrappers = true",
        "",
        "[[rule]]",
        'strip_wrappers = ["_orig_mod"]',
        "",
    ]
    assert r"drop = 'fc\,.*'" in mapping.to_toml()
    assert "sizes = [4, 2, 2]" in mapping.to_toml()
    mapping.save("n.toml")
    assert Path("n.toml").read_text() == mapping.to_toml()
    assert KeyMapping.load("n.toml").to_toml() == mapping.to_toml()


def test_no_rules_are_an_empty_file():
    assert KeyMapping().to_toml() == ""
    assert KeyMapping.load(written("")) == KeyMapping()


@settings(max_examples=300, deadline=None)
@given(st.lists(any_rule(), max_size=4))
def test_every_mapping_comes_back(rules):
    text = KeyMapping(tuple(rules)).to_toml()
    if sys.version_info >= (3, 11):
        import tomllib

        assert rules_of(tomllib.loads(text), "m.toml", text) == tuple(rules)


@settings(max_examples=30, deadline=None)
@given(st.lists(any_rule(), max_size=4))
def test_every_mapping_comes_back_from_a_file(tmp_path_factory, rules):
    path = tmp_path_factory.mktemp("toml") / "m.toml"
    mapping = KeyMapping(tuple(rules))
    mapping.save(path)
    assert KeyMapping.load(path) == mapping


GOOD = '[[rule]]\nrename = "a -> b"\n\n'


@pytest.mark.parametrize(
    ("text", "where", "reason"),
    [
        (GOOD + "[[rule]]\nrenam = 'a -> b'", "m.toml:5", "has the unknown key 'renam'; did you mean 'rename'?"),
        (GOOD + "[[rule]]\n# nothing", "m.toml:4", "has an empty rule"),
        (GOOD + "[[rule]]\nrename = 'a'", "m.toml:4", "a: is no mapping rule"),
        (GOOD + "[[rule]]\ndrop = 3", "m.toml:5", "has drop = 3, which is no text of a rule"),
        (GOOD + "[[rule]]\ndrop = ''", "m.toml:5", "has drop = '', which is no text of a rule"),
        (
            GOOD + "[[rule]]\nstrip_wrappers = false",
            "m.toml:5",
            "has strip_wrappers = False, which is no text of a rule",
        ),
        (GOOD + "[[rule]]\ndrop = 'a'\n\ninit = 'a'", "m.toml:7", "has drop and init in one rule"),
        (GOOD + "[[rule]]\ndrop = 'a'\ndim = 0", "m.toml:6", "has the unknown key 'dim'; drop takes no options"),
        (
            GOOD + "[[rule]]\ntranspose = 'a'\ndim = [0, 1]",
            "m.toml:4",
            "transpose: has no option 'dim'; did you mean 'dims'?",
        ),
        (
            GOOD + "[[rule]]\nsplit = 'a -> b'",
            "m.toml:4",
            "split a -> b: makes several tensors: list them, or write {e} for all",
        ),
        (
            GOOD + "[[rule]]\nslice = 'a'\nstop = 1.5",
            "m.toml:6",
            "has stop = 1.5, which is no number, text, truth value or list of numbers",
        ),
        (GOOD + "[[rules]]\ndrop = 'a'", "m.toml:4", "has the unknown key 'rules'; did you mean 'rule'?"),
        ("version = 1\n" + GOOD, "m.toml:1", "has the unknown key 'version'"),
        ("rule = 3", "m.toml:1", "has a rule that is no table"),
        ("rule = [{rename = 'a -> b'}, {rename = 'a'}]", "m.toml: rule 2", "a: is no mapping rule"),
        ("x = '''\n[[rule]]\n'''", "m.toml:1", "has the unknown key 'x'"),
        (
            "[[rule]]\ndrop = '''\n[[rule]]\n'''\n[[rule]]\nrename = 'a'",
            "m.toml: rule 2",
            "a: is no mapping rule",
        ),
    ],
)
def test_a_fault_names_its_line(text, where, reason):
    with pytest.raises(UsageError) as caught:
        KeyMapping.load(written(text))
    assert (caught.value.subject, caught.value.reason) == (where, reason)
    assert caught.value.hint or "option" in reason or "list them" in reason


def test_the_rules_of_a_part_of_a_file_have_lines_too():
    text = "[tool.x]\n\n[[tool.x.rule]]\ndrop = 'a'\n\n[[tool.x.rule]]\ndrap = 'a'\n"
    assert rules_of({"rule": [{"drop": "a"}]}, "pyproject.toml") == KeyMapping.parse(["drop a"]).rules
    with pytest.raises(UsageError, match=r"pyproject\.toml:7: has the unknown key 'drap'; did you mean 'drop'\?"):
        rules_of({"rule": [{"drop": "a"}, {"drap": "a"}]}, "pyproject.toml", text)


def test_a_file_that_is_no_toml_names_its_line():
    with pytest.raises(UsageError) as caught:
        KeyMapping.load(written("[[rule]]\nrename = a -> b\n"))
    assert caught.value.subject == "m.toml:2"
    assert caught.value.reason.startswith("is not valid TOML: ")


def test_a_file_that_cannot_be_read():
    with pytest.raises(UsageError, match=r"gone\.toml: cannot be read: No such file"):
        KeyMapping.load("gone.toml")
    Path("m.toml").write_bytes(b"\xff")
    with pytest.raises(UsageError, match=r"m\.toml: is not UTF-8 at byte 0"):
        KeyMapping.load("m.toml")


def test_half_a_character_cannot_be_written():
    with pytest.raises(UsageError, match=r"'a\\udc80 -> b': holds half of a character, which TOML cannot hold"):
        KeyMapping.parse(["a\udc80 -> b"]).to_toml()


def test_whatever_a_user_gives_becomes_a_mapping():
    written('[[rule]]\ndrop = "a"')
    drop, rename = KeyMapping.parse(["drop a"]), KeyMapping.parse(["a -> b"])
    assert KeyMapping.of("m.toml") == KeyMapping.of(Path("m.toml")) == KeyMapping.of(["m.toml"]) == drop
    assert KeyMapping.of("a -> b") == KeyMapping.of(["a -> b"]) == KeyMapping.of(rename) == rename
    assert KeyMapping.of(["a -> b", Path("m.toml")]).rules == rename.rules + drop.rules
    assert KeyMapping.of("x -> y.toml") == KeyMapping.parse(["x -> y.toml"])
    with pytest.raises(UsageError, match="int: is no mapping rule"):
        KeyMapping.of([3])
