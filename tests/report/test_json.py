"""The machine format: ASCII, one line a finding, the same whatever the width."""

from __future__ import annotations

import json

import pytest

from ckptaudit import Manifest, TensorSpec, audit
from ckptaudit.report import FORMATS, render


def report(**options):
    model = Manifest({"ключ": TensorSpec((2,), "float32"), "b": TensorSpec((3,), "float32")})
    checkpoint = Manifest({"module.ключ": TensorSpec((2,), "float32"), "module.b": TensorSpec((4,), "float32")})
    return audit.diff(model, checkpoint, **options)


def test_it_is_what_the_report_says():
    text = render(report(), "json")
    assert text.isascii()
    assert json.loads(text) == json.loads(json.dumps(report().to_json()))


def test_findings_have_a_line_each():
    lines = [line for line in render(report(), "json").splitlines() if "fingerprint" in line]
    assert [line[2:20] for line in lines] == ['{"code": "CKPT103"', '{"code": "CKPT201"']


def test_width_and_verbosity_do_not_matter():
    assert len({render(report(), "json", width, verbose) for width in (40, 200) for verbose in (False, True)}) == 1


@pytest.mark.parametrize("form", FORMATS)
def test_the_same_report_gives_the_same_text(form):
    assert render(report(), form) == render(report(), form)
    assert render(report(), form).endswith("\n")


def test_the_fingerprint_does_not_depend_on_the_contract():
    def prints(contract):
        return {f["code"]: f["fingerprint"] for f in json.loads(render(report(contract=contract), "json"))["findings"]}

    strict, partial = prints("strict"), prints("partial")
    assert strict == partial
    assert len(strict) == len(report().findings)
