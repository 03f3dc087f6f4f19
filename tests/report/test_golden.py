import pytest
from golden import CASES, FOLDER, WIDTHS, path_of, run


@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("case", CASES)
def test_the_output_is_the_golden_one(case, width):
    text = run(case, width)
    assert text == path_of(case, width).read_text()
    assert text
    if "concise" not in case:  # a line a finding, however long
        assert max(map(len, text.splitlines())) <= width
    assert text.isascii()
    assert "\x1b" not in text


def test_no_golden_file_is_left_over():
    assert {path.name for path in FOLDER.iterdir()} == {path_of(case, width).name for case in CASES for width in WIDTHS}
