"""Reports that every format is tried on, and names that no format may be fooled by."""

from __future__ import annotations

from functools import cache
from pathlib import Path

from ckptaudit import Manifest, TensorSpec, audit, scan
from ckptaudit.checking import check
from ckptaudit.config import parse_config
from ckptaudit.records import replace

ROOT = Path(__file__).parents[2]
FIXTURES = ROOT / "fixtures"
RESNET50 = FIXTURES / "resnet50"
NET = {"conv.weight": (4, 3, 3, 3), "fc.weight": (10, 4), "fc.bias": (10,)}

# What would be markup, a command, a link, a mention or the end of something in one format or another.
HOSTILE = [
    "</script><script>alert(1)</script>",
    "<img src=x onerror=alert(1)>",
    "a|b",
    r"a\|b",
    "`code` ``more``",
    " blank ",
    "**bold** _it_ ~~gone~~",
    "[click](https://example.org)",
    "![image](https://example.org/x.png)",
    "https://example.org and www.example.org",
    "@octocat and #1",
    "::error::forged",
    "##[error]forged",
    "%0A::error::forged",
    "line\n::error::forged",
    "back\rto start",
    "]]> & &amp; ]]",
    "\x00\x1b[31mred\x07",
    "\ud800\ufffe\u202e",
    "{{ 7 * 7 }} {% raw %}",
    "ключ.вес",
    "'quotes' \"both\"",
    "constructor.__proto__.toString",
    "",
    "a..b.",
]


def net(shapes, dtype="float32", **parts):
    return Manifest({key: TensorSpec(tuple(shape), dtype) for key, shape in shapes.items()}, **parts)


def hostile():
    return audit.diff(net(NET), net({**NET, **{key: (number + 2,) for number, key in enumerate(HOSTILE)}}))


def huge(count=20_000):
    """Return a report with one row for each of so many tensors, no two of which fold."""
    shapes = {f"block{number}.{'x' * (number % 7)}weight": (number + 1, 2) for number in range(count)}
    return audit.diff(net(shapes), net({key: (2, size + 1) for key, (size, _) in shapes.items()}))


def accepted():
    """Return a report whose errors were accepted."""
    report = audit.diff(net(NET), net({**NET, "fc.weight": (7, 4)}))
    return replace(report, findings=(), accepted=report.findings, verdict="kept")


@cache
def reports():
    """Return reports by name: of every verdict, with and without mapping, and with names of a stranger's."""
    wrapped = {f"module.{key}": shape for key, shape in {**NET, "fc.bias": (7,)}.items()}
    return {
        "kept": audit.diff(net(NET), net(NET)),
        "broken": audit.diff(net(NET), net({"conv.weight": (4, 3, 3, 3), "fc.weight": (10, 5), "old": (1,)})),
        "mapped": audit.diff(net(NET), net(wrapped)),
        "unchecked": audit.diff(net(NET), net(NET), contract="resume"),
        "exact": audit.diff(net(NET, "bfloat16"), net(NET), contract="exact"),
        "warned": audit.diff(net(NET, "bfloat16"), net(NET)),
        "file": audit.diff(RESNET50 / "model.manifest.json", RESNET50 / "dataparallel.pth"),
        "hostile": hostile(),
        "accepted": accepted(),
    }


@cache
def scans():
    """Return scans by name: of every verdict, of many files, and of none."""
    return {
        "rules": scan(FIXTURES / "rules"),
        "safe": scan(RESNET50),
        "nothing": scan(FIXTURES / "article" / "own_class"),
    }


@cache
def checks():
    """Return checks of projects by name: broken, accepted for a reason, with models and files that are not there."""
    project, committed = FIXTURES / "project", '[targets.net]\nmodel = "net.json"\nmanifest = "net.manifest.json"\n'
    accept = '[[accept]]\nrule = "{}"\nkey = "{}"\nreason = "a new head @octocat"\n'
    texts = {
        "broken": committed,
        "accepted": committed + accept.format("CKPT201", "fc.*"),
        "unused": committed + accept.format("CKPT102", "x"),
        "missing": committed + '[targets.two]\nmodel = "no.json"\ncheckpoint = ["a.pth", "net.json"]\n'
        '[targets.three]\nmodel = "net.json"\ncheckpoint = ["a.pth", "net.json"]\n',
    }
    return {name: check(parse_config(text, str(project / "ckptaudit.toml"))) for name, text in texts.items()}


def every():
    named = {f"scan {name}": one for name, one in scans().items()}
    return {**reports(), **named, **{f"check {name}": one for name, one in checks().items()}}


def findings_of(report):
    """Return all findings in order: those of the reports of a check first."""
    return [*(one for inner in getattr(report, "reports", ()) for one in inner.findings), *report.findings]


def accepted_of(report):
    return [one for inner in getattr(report, "reports", (report,)) for one in getattr(inner, "accepted", ())]


def codes(report):
    return {graded.finding.rule.code for graded in report.findings}
