import pytest
from hypothesis import given
from hypothesis import strategies as st

from ckptaudit.errors import UsageError
from ckptaudit.mapping.rules import Drop, Rename, StripWrappers, escape, parse_rule


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
    ],
)
def test_faults_are_named(line, reason):
    with pytest.raises(UsageError) as caught:
        parse_rule(line)
    assert (caught.value.subject, caught.value.reason) == (line, reason)
    assert caught.value.hint
