"""The HTML page: what it holds, that it needs and runs nothing else, and what a person can do with it in a browser."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import sys
from html.parser import HTMLParser

import pytest
from cases import FIXTURES, HOSTILE, NET, RESNET50, accepted_of, checks, findings_of, hostile, net, reports
from chromium import FOUND, Browser

from ckptaudit import UsageError, audit
from ckptaudit.report import render
from ckptaudit.report.page_data import STATES, tree_of
from ckptaudit.words import visible

pytest.importorskip("jinja2")

PAGES = {**reports(), **{f"check {name}": one for name, one in checks().items()}}
VOID = {"meta", "link", "input", "br"}


class Page(HTMLParser):
    """Collects tags, text outside of scripts, and the content of scripts and styles; checks that tags nest."""

    def __init__(self, text):
        super().__init__()
        self.tags, self.text, self.scripts, self.links, self._open = [], "", [], [], []
        self.feed(text)
        assert self._open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))
        self.links += [value for name, value in attrs if name in ("href", "src", "action")]
        if tag not in VOID:
            self._open.append(tag)
        if tag in ("script", "style"):
            self.scripts.append((dict(attrs).get("type", tag), ""))

    def handle_endtag(self, tag):
        assert self._open.pop() == tag

    def handle_data(self, data):
        if self._open and self._open[-1] in ("script", "style"):
            kind, before = self.scripts[-1]
            self.scripts[-1] = (kind, before + data)
        else:
            self.text += data


def data_of(text):
    return json.loads(dict(Page(text).scripts)["application/json"])


class TestContent:
    @pytest.mark.parametrize("name", PAGES)
    def test_it_is_well_formed_and_names_every_finding(self, name):
        page = Page(render(PAGES[name], "html"))
        for graded in (*findings_of(PAGES[name]), *accepted_of(PAGES[name])):
            assert f"{graded.finding.rule.code} {graded.finding.rule.name}" in page.text
            assert visible(graded.finding.message) in page.text
            assert graded.reason in page.text

    @pytest.mark.parametrize("name", PAGES)
    def test_it_needs_nothing_and_runs_nothing_else(self, name):
        page = Page(render(PAGES[name], "html"))
        assert set(page.links) <= {"#tree", "data:,"}
        (policy,) = [attrs["content"] for tag, attrs in page.tags if attrs.get("http-equiv")]
        assert policy.startswith("default-src 'none'; img-src data:; ")
        for kind, text in page.scripts:
            if kind != "application/json":
                digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
                assert f"{kind}-src 'sha256-{digest}'" in policy
        assert not any(name.startswith("on") or name == "style" for _, attrs in page.tags for name in attrs)

    def test_it_does_not_say_that_a_broken_contract_is_kept(self):
        report = reports()["broken"]
        assert not report.ok
        assert f">what it asks: {report.contract.promise}<" in render(report, "html")

    def test_no_name_becomes_markup(self):
        text = render(hostile(), "html")
        page = Page(text)
        assert {tag for tag, _ in page.tags} <= {tag for tag, _ in Page(render(reports()["broken"], "html")).tags}
        assert text.count("<script") == 2
        assert data_of(text)["views"][0]["keys"] == [*NET, *HOSTILE]

    def test_the_same_report_gives_the_same_page(self):
        assert render(reports()["mapped"], "html") == render(reports()["mapped"], "html")

    def test_without_jinja2_it_says_what_to_install(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "jinja2", None)
        with pytest.raises(UsageError) as caught:
            render(reports()["kept"], "html")
        assert (caught.value.reason, caught.value.hint) == (
            "needs jinja2, which is not installed",
            "pip install 'ckptaudit[html]'",
        )


class TestTree:
    def states(self, report, view=0):
        found = tree_of([report])["views"][view]
        return {key: STATES[int(state)] for key, state in zip(found["keys"], found["states"], strict=True)}

    def test_every_tensor_has_the_state_of_the_alignment(self):
        model = {**NET, "new.weight": (1,)}
        report = audit.diff(
            net(model), net({"conv.weight": (4, 3, 3, 3), "fc.weight": (7, 4), "fc.bias": (10,), "old": (1,)})
        )
        assert self.states(report) == {
            "conv.weight": "matched",
            "fc.weight": "mismatched",
            "fc.bias": "matched",
            "new.weight": "missing",
            "old": "unexpected",
        }
        assert set(self.states(reports()["warned"]).values()) == {"cast"}

    def test_it_begins_where_something_differs(self):
        assert tree_of([reports()["mapped"]])["start"] == 1
        assert tree_of([reports()["kept"], reports()["broken"], reports()["mapped"]])["start"] == 1

    def test_a_mapping_has_a_tree_of_its_own_with_the_names_of_the_file(self):
        report = reports()["mapped"]
        as_is, mapped = tree_of([report])["views"]
        assert (as_is["title"], mapped["title"]) == ("as is", "with the safe fix")
        assert set(self.states(report).values()) == {"missing", "unexpected"}
        assert self.states(report, 1) == {"conv.weight": "matched", "fc.weight": "matched", "fc.bias": "mismatched"}
        assert mapped["origins"] == {0: "module.conv.weight", 1: "module.fc.weight", 2: "module.fc.bias"}

    def test_findings_are_on_the_tensors_that_they_are_about(self):
        report = reports()["mapped"]
        tree = tree_of([report])
        codes = [one["code"] for one in tree["findings"]]
        assert codes == [graded.finding.rule.code for graded in report.findings]
        mapped = tree["views"][1]["findings"]
        assert {row: [codes[number] for number in numbers] for row, numbers in mapped.items()} == {
            0: ["CKPT103"],
            1: ["CKPT103"],
            2: ["CKPT103", "CKPT201"],
        }

    def test_findings_count_through_the_reports_of_a_check(self):
        check = checks()["missing"]
        tree = tree_of(check.reports)
        assert len(tree["findings"]) == len(findings_of(check)) - len(check.findings)
        (first, *_) = tree["views"]
        assert tree["start"] == 0
        assert first["title"].endswith("net.manifest.json, as is")
        for view in tree["views"]:
            for numbers in view["findings"].values():
                assert all(tree["findings"][number]["code"] for number in numbers)

    def test_a_report_without_tensors_has_no_tree(self):
        text = render(checks()["missing"], "html")
        assert "tree" in text
        assert tree_of([one for one in checks()["missing"].reports if one.error]) is None


def luminance(colour):
    parts = [int(colour[at : at + 2], 16) / 255 for at in (1, 3, 5)]
    red, green, blue = (part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts)
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


@pytest.mark.parametrize("theme", ["light", "dark"])
def test_every_colour_of_text_can_be_read(theme):
    """A contrast of 4.5 is what WCAG 2 asks for (level AA)."""
    style = (FIXTURES.parent / "ckptaudit" / "report" / "page" / "page.css").read_text()
    start = style.index(":root {" if theme == "light" else ':root[data-theme="dark"] {')
    colours = dict(re.findall(r"--(\w+): (#\w{6})", style[start : style.index("}", start)]))
    for name in ("ink", "muted", "accent", *STATES):
        for ground in ("bg", "card"):
            light, dark = sorted((luminance(colours[name]), luminance(colours[ground])), reverse=True)
            assert (light + 0.05) / (dark + 0.05) >= 4.5, (name, ground)


# In a browser ------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    if FOUND is None:
        pytest.skip("no Chromium is installed")
    made = Browser(tmp_path_factory.mktemp("profile"))
    yield made
    made.close()


@pytest.fixture
def show(browser, tmp_path):
    """Show a report; whatever was done with it, nothing may have gone wrong or been asked for."""

    def show(report, **options):
        path = tmp_path / "report.html"
        path.write_text(render(report, "html"))
        browser.open(path, **options)
        return browser

    yield show
    assert browser.errors == []
    assert [url for url in browser.requests if not url.startswith(("file:", "data:"))] == []


ROWS = "[...document.querySelectorAll('#rows .row')].map((row) => row.querySelector('.name').textContent)"
SELECTED = "document.querySelector('[aria-selected=true] .name')?.textContent"
COUNT = "document.getElementById('count').textContent"
DETAIL = "document.getElementById('detail').textContent"


@pytest.fixture(scope="module")
def resnet():
    return audit.diff(RESNET50 / "model.manifest.json", RESNET50 / "dataparallel.pth")


def search(browser, text):
    browser.run("document.activeElement.blur()")
    browser.press("/")
    browser.type(text)


class TestInABrowser:
    def test_it_opens_with_what_differs_unfolded(self, show, resnet):
        page = show(resnet)
        assert page.run("document.title").startswith("broken: ")
        assert page.run(ROWS) == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc", "weight", "bias"]
        assert page.run(COUNT) == "320 tensors"

    def test_search(self, show, resnet):
        page = show(resnet)
        search(page, "layer4.0.conv")
        page.until(f"{COUNT} === '3 of 320 tensors'")
        assert page.run(ROWS) == ["layer4", "0", "conv1", "weight", "conv2", "weight", "conv3", "weight"]
        page.press("Escape")
        page.until(f"{COUNT} === '320 tensors'")

    def test_search_with_stars_and_by_the_name_in_the_file(self, show, resnet):
        page = show(resnet)
        search(page, "layer?.0.bn1*bias")
        page.until(f"{COUNT} === '4 of 320 tensors'")
        page.press("Escape")
        search(page, "module.fc")
        page.until(f"{COUNT} === '2 of 320 tensors'")
        page.press("Escape")
        search(page, "nothing like it")
        page.until(f"{COUNT} === '0 of 320 tensors'")
        assert page.run("document.querySelector('#rows').textContent") == "No tensor matches."

    def test_filter_by_state(self, show, resnet):
        page = show(resnet)
        page.click("button[data-state=matched]")
        page.until(f"{COUNT} === '2 of 320 tensors'")
        assert page.run(ROWS) == ["fc", "weight", "bias"]
        page.click("button[data-state=mismatched]")
        page.until(f"{COUNT} === '0 of 320 tensors'")
        page.click("button[data-state=matched]")
        page.until(f"{COUNT} === '318 of 320 tensors'")

    def test_fold_by_mouse(self, show, resnet):
        page = show(resnet)
        page.click("#fold")
        assert page.run(ROWS) == ["conv1", "bn1", "layer1", "layer2", "layer3", "layer4", "fc"]
        page.click("#row0 .twisty")
        assert page.run(ROWS)[:3] == ["conv1", "weight", "bn1"]
        page.click("#unfold")
        assert page.run("document.getElementById('sizer').offsetHeight") > 400 * 28

    def test_walk_and_fold_by_keyboard(self, show, resnet):
        page = show(resnet)
        page.run("document.getElementById('tree').focus()")
        for key, expected in [
            ("ArrowDown", "conv1"),
            ("ArrowDown", "bn1"),
            ("ArrowRight", "bn1"),
            ("ArrowRight", "weight"),
            ("ArrowLeft", "bn1"),
            ("ArrowLeft", "bn1"),
            ("ArrowDown", "layer1"),
            ("End", "bias"),
            ("ArrowUp", "weight"),
            ("Home", "conv1"),
            ("Enter", "conv1"),
            ("ArrowDown", "weight"),
        ]:
            page.press(key)
            assert page.run(SELECTED) == expected
        active = "document.getElementById(document.getElementById('tree').getAttribute('aria-activedescendant'))"
        assert page.run(f"{active}.getAttribute('aria-level')") == "2"

    def test_shapes_and_values_on_demand(self, show, resnet):
        page = show(resnet)
        page.click("#row7")
        text = page.run(DETAIL)
        for part in ("fc.weight", "≠ mismatched", "module.fc.weight", "(1000, 2048)", "(10, 2048)", "CKPT201"):
            assert part in text

    def test_the_names_as_they_are_and_under_the_mapping(self, show, resnet):
        page = show(resnet)
        page.click("#views button")
        page.until(f"{COUNT} === '640 tensors'")
        assert page.run("document.querySelector('button[data-state=missing]').textContent") == "\u2212 missing 320"

    def test_the_tensors_of_a_finding(self, show, resnet):
        page = show(resnet)
        page.run("document.querySelectorAll('details.finding').forEach((one) => { one.open = true })")
        page.click("details.finding:nth-of-type(3) button.show")
        page.until(f"{COUNT} === '2 of 320 tensors'")
        page.click("#only")
        page.until(f"{COUNT} === '320 tensors'")

    @pytest.mark.parametrize("dark", [False, True])
    def test_light_and_dark(self, show, resnet, dark):
        page = show(resnet, dark=dark)
        colour = "getComputedStyle(document.body).backgroundColor"
        light_and_dark = ("rgb(246, 247, 249)", "rgb(16, 19, 23)")
        assert page.run(colour) == light_and_dark[dark]
        page.click("#theme")
        assert page.run(colour) == light_and_dark[not dark]

    @pytest.mark.parametrize("width", [360, 700, 1300])
    @pytest.mark.parametrize("name", ["file", "hostile", "check missing"])
    def test_nothing_is_wider_than_the_window(self, show, name, width):
        page = show(PAGES[name], width=width)
        assert page.run("document.documentElement.scrollWidth") <= width

    @pytest.mark.parametrize("name", PAGES)
    def test_every_report_opens(self, show, name):
        page = show(PAGES[name])
        assert page.run("document.querySelector('.badge').textContent") == PAGES[name].verdict

    def test_names_of_a_stranger_are_text(self, show):
        page = show(hostile())
        page.click("#unfold")
        page.run("document.getElementById('tree').focus()")
        for _ in range(page.run("document.getElementById('sizer').offsetHeight") // 28):
            page.press("ArrowDown")
        assert page.run("document.querySelectorAll('img, script, b i, iframe').length") == 2
        page.press("End")
        search(page, "<script>")
        page.until(f"{COUNT}.startsWith('1 of ')")
        page.press("Escape")
        search(page, "__proto__")
        page.until(f"{COUNT}.startsWith('1 of ')")

    def test_a_select_where_a_check_has_many_comparisons(self, show):
        several = checks()["broken"]
        from ckptaudit.records import replace

        report = replace(several, reports=several.reports * 4)
        page = show(report)
        assert page.run("document.querySelectorAll('#views option').length") == 4
        page.run(
            "(() => { const s = document.querySelector('#views select'); s.value = 2; s.dispatchEvent(new Event('change')) })()"
        )
        assert page.run("document.querySelector('#views select').value") == "2"

    def test_a_hundred_thousand_tensors(self, show):
        sizes = {f"blocks.{number // 100}.layer{number % 100}.weight": (2, 2) for number in range(100_000)}
        report = audit.diff(net(sizes), net({**sizes, "blocks.77.layer7.weight": (3, 2)}))
        page = show(report)
        assert page.run(ROWS)[-1] != ""
        page.click("#unfold")
        page.run("document.getElementById('tree').scrollTop = 1000000")
        page.run("new Promise((done) => requestAnimationFrame(() => requestAnimationFrame(() => done(0))))")
        assert 0 < page.run("document.querySelectorAll('#rows .row').length") < 150
        search(page, "blocks.77.layer7")
        page.until(f"{COUNT}.startsWith('11 of 100,000')")
        page.click("button[data-state=matched]")
        page.until(f"{COUNT}.startsWith('1 of 100,000')")
        assert page.run(ROWS) == ["blocks", "77", "layer7", "weight"]
