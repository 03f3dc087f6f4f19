"""``map --verify``: a right mapping passes, a wrong one is caught by the outputs, and what tells nothing is said to."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch
from referencing import Registry, Resource
from safetensors.torch import save_file

from ckptaudit.cli import main

ROOT = Path(__file__).parents[1]
CHAIN = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        {layers}

    def forward(self, x):
        {code}
"""
INPUT = ["--input", "3,8"]


def write(name, layers, code):
    """Write a model of square layers, given by their names, and what its forward does."""
    layers = "\n        ".join(f"self.{layer} = nn.Linear(8, 8)" for layer in layers)
    Path(name).write_text(CHAIN.format(layers=layers, code=code))


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write("old.py", ["first", "second", "third"], "return self.third(self.second(self.first(x).relu()).relu())")
    torch.manual_seed(1)
    sides = ("weight", (8, 8)), ("bias", (8,))
    state = {f"{n}.{leaf}": torch.randn(shape) for n in ("first", "second", "third") for leaf, shape in sides}
    torch.save(state, "old.pth")


def infer(capsys, *arguments):
    try:
        status = main(["map", "--width", "80", *map(str, arguments)])
    except SystemExit as end:
        status = end.code
    out, err = capsys.readouterr()
    return status, out, err


def verify(capsys, model, *arguments):
    return infer(capsys, "old.pth", model, "--verify", "--reference", "old.py:Net", *INPUT, *arguments)


def test_a_right_mapping_puts_out_the_same(capsys):
    write(
        "new.py",
        ["a_first", "a_second", "a_third"],
        "return self.a_third(self.a_second(self.a_first(x).relu()).relu())",
    )
    status, out, _ = verify(capsys, "new.py")
    assert status == 0
    assert "Loaded: 6 of 6 tensors, 100.0% of the model." in out
    assert "Verified: the model puts out what the reference does." in out
    assert "output (3, 8): greatest difference 0 of " in out


def test_two_layers_of_one_shape_that_are_swapped_are_caught(capsys):
    """Every name says otherwise, so that the mapping is sure, and wrong."""
    write("new.py", ["first", "second", "third"], "return self.third(self.first(self.second(x).relu()).relu())")
    assert infer(capsys, "old.pth", "new.py")[0] == 0
    status, out, _ = verify(capsys, "new.py")
    assert status == 1
    assert "WRONG: the outputs differ by more than rounding." in out
    status, out, _ = verify(capsys, "new.py", "--format", "json")
    data = json.loads(out)
    (output,) = data["verification"]["outputs"]
    assert status == data["exit_status"] == 1
    assert output["difference"] > 0.1 * output["scale"]
    assert output["cosine"] < 0.99


def test_equal_outputs_prove_what_was_to_be_checked(capsys):
    words = ["amber", "birch", "cedar"]
    for order, wanted in ((words, 0), (words[::-1], 1)):
        call = f"return self.{order[2]}(self.{order[1]}(self.{order[0]}(x).relu()).relu())"
        write("new.py", words, call)
        status, out, _ = infer(capsys, "old.pth", "new.py")
        assert (status, "To be checked:" in out) == (1, True)
        assert verify(capsys, "new.py")[0] == wanted


def test_tolerances(capsys):
    write("new.py", ["first", "second", "third"], "return 1.01 * self.third(self.second(self.first(x).relu()).relu())")
    assert verify(capsys, "new.py")[0] == 1
    assert verify(capsys, "new.py", "--rtol", "0.02")[0] == 0
    assert verify(capsys, "new.py", "--atol", "100")[0] == 0


def test_without_a_reference_the_load_is_told(capsys):
    write("new.py", ["first", "second", "fourth"], "return x")
    status, out, _ = infer(capsys, "old.pth", "new.py", "--verify")
    assert "Loaded: " in out
    assert "Verified" not in out
    assert status == infer(capsys, "old.pth", "new.py")[0]


@pytest.mark.parametrize(
    ("code", "words", "status"),
    [
        (
            "return (self.first(x), {'a': self.second(x)})",
            "WRONG: the model puts out 2 tensors, and the reference 1.",
            1,
        ),
        ("return self.third(self.second(self.first(x)))[:1]", "WRONG: the outputs have other shapes.", 1),
        ("return self.first(x) * float('nan')", "WRONG: the outputs differ by more than rounding.", 1),
    ],
)
def test_outputs_of_another_kind(code, words, status, capsys):
    write("new.py", ["first", "second", "third"], code)
    found, out, _ = verify(capsys, "new.py")
    assert (found, words in out) == (status, True)
    found, out, _ = verify(capsys, "new.py", "--format", "json")
    assert found == status
    json.loads(out, parse_constant=lambda name: pytest.fail(f"{name} is no JSON"))


def test_outputs_that_tell_nothing_are_no_proof(capsys):
    for name in ("old.py", "new.py"):
        write(name, ["first", "second", "third"], "return 0 * self.first(x)")
    status, out, _ = verify(capsys, "new.py")
    assert status == 2
    assert "Not verified: the reference puts out one value for everything" in " ".join(out.split())


def test_a_file_of_tensors_is_given_by_name(capsys):
    for name, layers in (("old.py", "first second third"), ("new.py", "first second third")):
        write(name, layers.split(), "return self.third(x) + scale * self.first(other)")
        text = Path(name).read_text()
        Path(name).write_text(text.replace("def forward(self, x):", "def forward(self, x, *, other, scale):"))
    tensors = {"0": torch.randn(2, 8), "other": torch.randn(2, 8), "scale": torch.tensor([3.0])}
    save_file(tensors, "in.safetensors")
    torch.save(tensors, "in.pt")
    for path in ("in.safetensors", "in.pt"):
        arguments = ["old.pth", "new.py", "--verify", "--reference", "old.py:Net", "--input", path]
        status, out, _ = infer(capsys, *arguments)
        assert (status, "Verified: " in out) == (0, True)


def test_the_code_of_both_models_may_have_modules_of_one_name(capsys, tmp_path):
    for side in ("one", "two"):
        Path(side).mkdir()
        Path(side, "parts.py").write_text(f"SIDE = {side!r}\n")
        write(f"{side}/net.py", ["first", "second", "third"], "return self.third(x)")
        text = Path(side, "net.py").read_text()
        Path(side, "net.py").write_text(f"import parts\nassert parts.SIDE == {side!r}\nprint('hello')\n{text}")
    status, out, _ = infer(capsys, "old.pth", "one/net.py", "--verify", "--reference", "two/net.py:Net", *INPUT)
    assert (status, "hello" in out) == (0, False)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--reference", "old.py"], "--reference: is for --verify, which is not given"),
        (["--input", "3,8"], "--input: is for --verify, which is not given"),
        (
            ["--verify", "--reference", "old.py"],
            "--input: is not given, and outputs are compared of two models on one input",
        ),
        (
            ["--verify", "--input", "3,8"],
            "--reference: is not given, and outputs are compared of two models on one input",
        ),
        (["--verify", "--reference", "old.py", "--input", "3,9"], "old.py:Net: does not run on that input: "),
        (["--verify", "--reference", "old.py", "--input", "three"], "--input three: is no shape"),
        (["--verify", "--reference", "other.py", "--input", "3,8"], "other.py: is no reference for old.pth: "),
    ],
)
def test_what_cannot_be_verified(arguments, sentence, capsys):
    write("new.py", ["a_first", "a_second", "a_third"], "return self.a_first(x)")
    write("other.py", ["alpha", "beta"], "return self.alpha(x)")
    status, out, err = infer(capsys, "old.pth", "new.py", *arguments)
    assert (status, out) == (2, "")
    assert f"ckptaudit: error: {sentence}" in err


def test_sides_without_values(capsys):
    write("new.py", ["first", "second", "third"], "return self.first(x)")
    main(["manifest", "write", "old.pth", "-o", "old.json"])
    status, _, err = infer(capsys, "old.json", "new.py", "--verify")
    assert (status, "old.json: has no values that could be loaded" in err) == (2, True)
    status, _, err = infer(capsys, "old.pth", "old.json", "--verify")
    assert (status, "old.json: is no code of a model, which --verify runs" in err) == (2, True)


def test_the_fixture_is_verified_and_follows_the_schema(capsys):
    renamed = ROOT / "fixtures" / "renamed"
    arguments = ["--verify", "--reference", f"{renamed / 'old_model.py'}:OldNet", "--input", "2,3,16,16"]
    arguments = [renamed / "old.pth", f"{renamed / 'model.py'}:Net", *arguments, "--format", "json"]
    status, out, _ = infer(capsys, *arguments)
    data = json.loads(out)
    schemas = {p.name.partition(".")[0]: json.loads(p.read_text()) for p in ROOT.glob("docs/reference/*.schema.json")}
    registry = Registry().with_resources((one["$id"], Resource.from_contents(one)) for one in schemas.values())
    jsonschema.Draft202012Validator(schemas["mapping"], registry=registry).validate(data)
    assert (status, data["verification"]["verdict"]) == (0, "equal")
    assert infer(capsys, *arguments)[1] == out
