"""docs/reference/mapping.md says what the code does: every rule in it reads, and every rule there is stands in it."""

import re
from pathlib import Path

import pytest

from ckptaudit.manifest import Manifest, TensorSpec
from ckptaudit.mapping.mapping import KeyMapping
from ckptaudit.mapping.ops import OPS
from ckptaudit.mapping.rules import WORDS, parse_rule
from ckptaudit.mapping.tensors import EXAMPLES

PAGE = (Path(__file__).parents[2] / "docs" / "reference" / "mapping.md").read_text()
LINES = [re.split(r"(?<!\\)\|", line)[1:-1] for line in PAGE.splitlines() if line.startswith("| `")]
ROWS = [[cell.strip().replace("\\|", "|") for cell in cells] for cells in LINES]
RULES = [line for row in ROWS for line in re.findall(r"`([^`]+)`", row[0])]
FITS = {
    "adapt_input_conv": {"conv1.weight": (8, 3, 3, 3)},
    "rope_permute": {"a.q_proj.weight": (64, 4)},
    "permute": {"conv.weight": (3, 3, 8, 4)},
    "reshape": {"fc.weight": (10, 4)},
    "pad": {"embed.weight": (8, 2)},
    "slice": {"fc.weight": (20, 4)},
    "resample_pos_embed": {"pos_embed": (1, 17, 8)},
    "transpose": {"h.0.attn.c_attn.weight": (4, 12)},
    "split": {"a.qkv": (12, 4)},
    "concat": {"a.q": (4, 4), "a.k": (4, 4), "a.v": (4, 4)},
    "stack": {"experts.0.w": (2,), "experts.1.w": (2,)},
    "unstack": {"experts.w": (3, 2)},
    "interleave": {"a.gate": (4, 4), "a.up": (4, 4)},
    "deinterleave": {"a.gate_up": (8, 4)},
    "cast": {"a": (4,)},
    "copy": {"embed.weight": (8, 2)},
    "chain": {"a.q.weight": (512, 512)},
    "part": {"a.qkv.weight": (12, 4)},
}


@pytest.mark.parametrize("line", RULES)
def test_a_rule_of_the_page_reads(line):
    assert parse_rule(line)


def test_the_page_has_every_rule():
    named = {word for row in ROWS for cell in row for text in re.findall(r"`([^`]+)`", cell) for word in text.split()}
    assert set(WORDS) - {"rename"} <= named
    assert "`rename FROM -> TO`" in PAGE


@pytest.mark.parametrize("row", [row for row in ROWS if len(row) == 4], ids=lambda row: row[0])
def test_what_the_page_says_of_values_and_of_the_way_back(row):
    mapping = KeyMapping.parse([row[0].strip("`")])
    word = mapping.rules[0].word
    source = Manifest({key: TensorSpec(shape, "float32") for key, shape in FITS[word].items()})
    recipe = next(iter(mapping.apply(source).recipes.values()))
    inputs = [source[key] for key in recipe.sources]
    if word == "cast":
        assert row[2:] == ["by dtype", "wider integers"]
    else:
        assert row[2] == ("exact" if recipe.op.exact(inputs) else "lossy")
        assert row[3] == ("yes" if recipe.op.undo(inputs) else "no")
    assert (recipe.op.undo(inputs) is not None) == (row[3] == "yes")


@pytest.mark.parametrize("text", re.findall(r"^```toml\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL))
def test_a_file_of_the_page_reads(text, tmp_path):
    (tmp_path / "m.toml").write_text(text)
    assert KeyMapping.load(tmp_path / "m.toml").rules


@pytest.mark.parametrize("word", [word for word in OPS if word != "chunk"])
def test_every_operation_has_an_example_that_reads(word):
    line = EXAMPLES[word].removeprefix("as in: ")
    assert parse_rule(line).word == word
