"""Markdown, read by GitHub's own parser: the tables that come out hold the very names that went in."""

from __future__ import annotations

import re
from html.parser import HTMLParser

import pytest
from cases import HOSTILE, NET, accepted_of, every, findings_of, hostile, huge, net, reports, scans

from ckptaudit import audit
from ckptaudit.keys import fold
from ckptaudit.report import render
from ckptaudit.report.markdown import MOST, code, escape, render_markdown
from ckptaudit.words import visible

cmarkgfm = pytest.importorskip("cmarkgfm", reason="cmarkgfm is GitHub's parser of Markdown")

TAGS = {
    "h3",
    "h4",
    "p",
    "table",
    "thead",
    "tbody",
    "tr",
    "th",
    "td",
    "code",
    "ul",
    "li",
    "details",
    "summary",
    "strong",
}


class Page(HTMLParser):
    """Collects the tags of a page, and the text of the cells and paragraphs."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.cells, self.text, self.links = set(), [], "", []
        self._cell = None
        self.feed(cmarkgfm.github_flavored_markdown_to_html(text, options=cmarkgfm.Options.CMARK_OPT_UNSAFE))

    def handle_starttag(self, tag, attrs):
        self.tags.add(tag)
        if tag in ("td", "th"):
            self._cell = ""
        self.links += [value for name, value in attrs if name in ("href", "src")]

    def handle_endtag(self, tag):
        if tag in ("td", "th"):
            self.cells.append(self._cell)
            self._cell = None

    def handle_data(self, data):
        self.text += data
        if self._cell is not None:
            self._cell += data


@pytest.mark.parametrize("name", every())
def test_it_is_what_it_looks_like(name):
    page = Page(render(every()[name], "markdown"))
    assert page.tags <= TAGS
    assert page.links == []


@pytest.mark.parametrize("name", every())
def test_every_finding_is_named(name):
    report = every()[name]
    text = Page(render(report, "markdown")).text
    for graded in (*findings_of(report), *accepted_of(report)):
        assert f"{graded.finding.rule.name} ({graded.finding.rule.code})" in text
        assert visible(graded.finding.message) in text


@pytest.mark.parametrize("name", HOSTILE)
def test_a_name_is_text_wherever_it_stands(name):
    for text in (f"| h |\n| --- |\n| {code(name)} |\n", f"| h |\n| --- |\n| {escape(name)} |\n"):
        page = Page(text)
        assert page.tags <= TAGS
        assert page.links == []
        assert page.cells == ["h", visible(name) if "code" in page.tags else visible(name).strip()]
    page = Page(f"a {code(name)} and {escape(name)} b")
    assert page.text.split() == f"a {visible(name)} and {visible(name)} b".split()


def test_nobody_is_mentioned():
    text = escape("@octocat #12 user/repo@abc")
    assert not re.search(r"[@#]\w", re.sub("<!-- -->", "\0", text))
    assert Page(text).text == "@octocat #12 user/repo@abc\n"


def test_every_row_of_a_hostile_table():
    cells = set(Page(render(hostile(), "markdown")).cells)
    assert {visible(str(pattern)) for name in HOSTILE if name for pattern in fold([name])} <= cells


class TestLength:
    @pytest.mark.parametrize("most", [MOST, 3_000])
    def test_it_fits_and_says_how_much_is_left_out(self, most):
        text = render_markdown(huge(), most)
        assert len(text) <= most
        assert Page(text).tags <= TAGS
        shown = sum(cell.startswith("block") for cell in Page(text).cells)
        (hidden,) = re.findall(r"([\d,]+) more rows not shown", text)
        assert shown + int(hidden.replace(",", "")) == 20_000

    def test_findings_that_do_not_fit_are_counted(self):
        report = reports()["broken"]
        full = render_markdown(report)
        for most in range(200, len(full) + 200, 50):
            text = render_markdown(report, most)
            shown = text.count("#### ")
            assert len(text) <= max(most, 250)
            hidden = re.search(
                r"\*\*(\d+) more findings? not shown\*\*: a comment holds [\d,]+ characters\.$", text.strip()
            )
            assert shown + int(hidden[1] if hidden else 0) == 3
        assert render_markdown(report, len(full) + 120) == full

    def test_a_finding_that_is_long_leaves_room_for_the_next(self):
        wide = {f"a{number}.w": (number + 1, 2) for number in range(5_000)}
        report = audit.diff(
            net({**NET, **wide}), net({**NET, **{key: (2, size) for key, (size, _) in wide.items()}, "old": (1,)})
        )
        text = render(report, "markdown")
        assert len(text) <= MOST
        assert "unexpected-key (CKPT102)" in text

    def test_many_parts(self):
        text = render_markdown([reports()["broken"]] * 400)
        assert len(text) <= MOST
        shown = text.count("#### ")
        assert f"**{1200 - shown:,} more findings not shown**" in text


class TestTitles:
    @pytest.mark.parametrize(
        ("name", "title"),
        [
            ("kept", "\u2705 ckptaudit: contract `strict` kept"),
            ("broken", "\u274c ckptaudit: contract `strict` broken"),
            ("unchecked", "\u26a0\ufe0f ckptaudit: contract `resume` unchecked"),
        ],
    )
    def test_one_report(self, name, title):
        assert render(reports()[name], "markdown").startswith(f"### {title}\n")

    def test_several(self):
        assert render_markdown([reports()["kept"]] * 2).startswith(
            "### \u2705 ckptaudit: all of 2 comparisons passed\n"
        )
        assert "ckptaudit: 1 of 2 comparisons did not pass\n" in render_markdown(
            [reports()["kept"], reports()["broken"]]
        )
        assert f"of {len(scans()['rules'].files)} files did not pass" in render(scans()["rules"], "markdown")


def test_files_without_findings_are_folded_away():
    text = render(scans()["rules"], "markdown")
    (count,) = re.findall(r"<summary>(\d+) files without findings", text)
    assert int(count) == sum(not file.findings for file in scans()["rules"].files)
    named = set(re.findall(r"^- `(.*)`: safe$", text, re.MULTILINE))
    assert named == {file.path for file in scans()["rules"].files if not file.findings}


def test_accepted_findings_are_there_and_folded():
    text = render(reports()["accepted"], "markdown")
    assert text.startswith("### \u2705 ckptaudit: contract `strict` kept\n\n1 accepted\n")
    assert "<details><summary>1 accepted finding</summary>\n\n#### error: shape-mismatch (CKPT201)" in text
