"""What a format needs besides its reader: seeds, a folder scan that finds it, a line in the documents."""

from pathlib import Path
from typing import get_args

import pytest
from fuzz_targets import targets

from ckptaudit.formats.base import DEFAULT_LIMITS, ByteSource
from ckptaudit.formats.discover import holds_checkpoint
from ckptaudit.formats.identify import Kind, identify

DOCUMENTED = (Path(__file__).parents[2] / "docs" / "reference" / "formats.md").read_text()
TARGETS = targets()
HELD = sorted(set(get_args(Kind)) - {"index", "manifest", "pickle"})  # in one file, with its tensors


@pytest.mark.parametrize("kind", HELD)
def test_a_format_is_fuzzed_found_by_a_scan_and_documented(kind, tmp_path):
    assert f"| `{kind}` |" in DOCUMENTED
    assert kind in TARGETS
    path = tmp_path / "without a suffix"
    for files in TARGETS[kind].seeds():
        [data] = files.values()
        path.write_bytes(data)
        source = ByteSource(path)
        assert identify(source, DEFAULT_LIMITS) == kind
        assert holds_checkpoint(source)
