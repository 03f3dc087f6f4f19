"""A script writes its own section of the document and leaves the others as they are."""

import re

import pytest
from section import DOCUMENT, replaced

DOCUMENTED = DOCUMENT.read_text()
TITLES = re.findall(r"^## .*", DOCUMENTED, re.MULTILINE)


@pytest.mark.parametrize("title", TITLES)
def test_one_section_is_replaced(title):
    written = replaced(DOCUMENTED, f"{title}\n\nnew\n")
    assert re.findall(r"^## .*", written, re.MULTILINE) == TITLES
    old = DOCUMENTED[DOCUMENTED.index(f"{title}\n") :].split("\n## ")[0].strip()
    assert written.replace(f"{title}\n\nnew", old) == DOCUMENTED


def test_a_new_section_comes_last():
    assert replaced("# A\n", "## B\n\nx\n") == "# A\n\n## B\n\nx\n"
