import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from strategies import any_rule

from ckptaudit.errors import UsageError
from ckptaudit.keys import KeyPattern
from ckptaudit.mapping.keyrules import AddPrefix, Tie
from ckptaudit.mapping.rules import WORDS, Drop, Rename, StripWrappers, escape, parse_rule


@pytest.mark.parametrize(
    ("line", "key", "renamed"),
    [
        ("module.* -> *", "module.fc.weight", "fc.weight"),
        ("module.* -> *", "fc.module.weight", "fc.module.weight"),
        ("* -> backbone.*", "fc.weight", "backbone.fc.weight"),
        ("fc.* -> head.*", "fc.weight", "head.weight"),
        ("fc.* -> head.*", "fcx.weight", "fcx.weight"),
        ("conv1.weight -> stem.weight", "conv1.weight", "stem.weight"),
        ("conv1.weight -> stem.weight", "x.conv1.weight", "x.conv1.weight"),
        ("*._orig_mod.* -> *.*", "a._orig_mod.b._orig_mod.c", "a.b._orig_mod.c"),
        ("blocks.{i}.* -> layers.{i+1}.*", "blocks.9.attn.w", "layers.10.attn.w"),
        ("blocks.{i}.* -> layers.{i-1}.*", "blocks.0.w", "blocks.0.w"),
        ("blocks.{i}.* -> layers.{i}.*", "blocks.01.w", "blocks.01.w"),
        ("a.{i}.b.{j} -> a.{j}.b.{i}", "a.1.b.2", "a.2.b.1"),
        ("a.{i}.{i} -> b.{i}", "a.3.3", "b.3"),
        ("a.{i}.{i} -> b.{i}", "a.3.4", "a.3.4"),
        (r"a\*b -> c", "a*b", "c"),
        (r"a\*b -> c", "axb", "axb"),
        ("drop fc.*", "fc.weight", None),
        ("drop fc.*", "conv.weight", "conv.weight"),
        ("drop *.num_batches_tracked", "bn.num_batches_tracked", None),
        ("strip_wrappers", "module._orig_mod.enc._fsdp_wrapped_module.fc.weight", "enc.fc.weight"),
        ("strip_wrappers _orig_mod", "module._orig_mod.fc.weight", "module.fc.weight"),
        ("strip_wrappers", "fc.module", "fc.module"),
        ("layers.{i+1}.* -> blocks.{i}.*", "layers.1.w", "blocks.0.w"),
        ("layers.{i+1}.* -> blocks.{i}.*", "layers.0.w", "layers.0.w"),
        ("a.{i}.{i+1} -> b.{i}", "a.3.4", "b.3"),
        ("a.{i}.{i+1} -> b.{i}", "a.3.3", "a.3.3"),
        ("a->b", "a", "b"),
        (r"a\->b -> c", "a->b", "c"),
        ("drop -> keep", "drop", "keep"),
        ("rename split a -> b", "split a", "b"),
        ("rename -> b", "rename", "b"),
        ("module.{i}.* -> *", "module.0.w", "w"),
        ("init fc.*", "fc.weight", None),
        ("strip_prefix module.", "module.module.w", "module.w"),
        ("strip_prefix module.", "fc.w", "fc.w"),
        ("add_prefix net.", "fc.w", "net.fc.w"),
        ("select_prefix encoder.", "encoder.w", "w"),
        ("select_prefix encoder.", "decoder.w", None),
        ("expect_missing fc.*", "fc.weight", "fc.weight"),
        ("tie a = b", "b", "b"),
        ("transpose a", "a", "a"),
    ],
)
def test_what_a_rule_does_to_a_key(line, key, renamed):
    assert parse_rule(line).apply(key) == renamed


@pytest.mark.parametrize(
    "rule",
    [Rename("a.*", "b.*"), Drop(parse_rule("drop {a,b}.*").pattern), StripWrappers(), StripWrappers(("net",))],
)
def test_a_rule_reads_back(rule):
    assert parse_rule(str(rule)) == rule


@settings(max_examples=500, deadline=None)
@given(any_rule())
def test_every_rule_reads_back(rule):
    assert parse_rule(str(rule)) == rule


@pytest.mark.parametrize(
    ("line", "back"),
    [
        ("blocks.{i}.* -> layers.{i+1}.*", "layers.{i+1}.* -> blocks.{i}.*"),
        ("strip_prefix a.", "add_prefix a."),
        ("add_prefix a.", "strip_prefix a."),
        ("select_prefix a.", "add_prefix a."),
        ("blocks.{i}.w -> w", None),
        ("drop a", None),
        ("init a", None),
        ("strip_wrappers", None),
        ("transpose a", None),
        ("expect_missing a", "expect_missing a"),
    ],
)
def test_what_takes_keys_back(line, back):
    inverse = parse_rule(line).inverse()
    assert (inverse and str(inverse)) == back


@given(st.text(alphabet="ab.*{}\\1", min_size=1, max_size=10))
def test_escaped_text_means_itself(text):
    assert Rename(escape(text), "x").apply(text) == "x"
    assert Rename("x", escape(text)).apply("x") == text


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ("module.*", "is no mapping rule"),
        ("a -> b -> c", "is no mapping rule"),
        ("a.* -> b", "has 1 stars on the left and 0 on the right"),
        ("a -> b.{i}", "uses {i} on the right alone"),
        ("a.{x,y} -> b", "has a brace that is no {i} at 2"),
        ("drop", "is no mapping rule"),
        ("split", "is no mapping rule"),
        ("drop a}", "has a closing brace without an opening one at 1"),
        ("tie a", "is not 'tie ALIAS = KEY'"),
        ("tie a = ", "is not 'tie ALIAS = KEY'"),
        ("tie a.{i} = b", "uses {i} on the right alone"),
        ("tie *.a = b", "has 0 stars on the left and 1 on the right"),
        ("strip_prefix *", "is a pattern, and a prefix is literal text"),
    ],
)
def test_faults_are_named(line, reason):
    with pytest.raises(UsageError) as caught:
        parse_rule(line)
    assert (caught.value.subject, caught.value.reason) == (line, reason)
    assert caught.value.hint


def test_what_cannot_be_written_cannot_be_made():
    for make in (lambda: Rename("a -> b", "c"), lambda: Rename("a\\", "b"), lambda: Rename(" a", "b")):
        with pytest.raises(UsageError, match="is no mapping rule"):
            make()
    with pytest.raises(UsageError, match="is not 'tie ALIAS = KEY'"):
        Tie("a = b", "c")
    with pytest.raises(UsageError, match="add_prefix: has an empty prefix"):
        AddPrefix("")


def test_a_pattern_that_looks_like_syntax_reads_back():
    for text in ("-> x", " x ", "a -> b"):
        rule = Drop(KeyPattern((text,)))
        assert parse_rule(str(rule)) == rule


def test_a_key_of_the_name_of_a_rule_can_be_renamed():
    for word in WORDS:
        assert parse_rule(f"{word} -> b") == Rename(word, "b")
