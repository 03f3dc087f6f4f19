"""Every JSON a command prints follows its schema in docs/reference/, and the same input gives the same bytes."""

from __future__ import annotations

import json
from pathlib import Path

import jsonschema
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from referencing import Registry, Resource
from safetensors import safe_open
from torch import nn

import ckptaudit
from ckptaudit import Manifest, TensorSpec
from ckptaudit.cli import main
from ckptaudit.dtypes import DTYPES
from ckptaudit.manifest import KINDS

ROOT = Path(__file__).parents[1]
SCHEMAS = {
    path.name.partition(".")[0]: json.loads(path.read_text()) for path in ROOT.glob("docs/reference/*.schema.json")
}
REGISTRY = Registry().with_resources((schema["$id"], Resource.from_contents(schema)) for schema in SCHEMAS.values())


def validate(data, name):
    jsonschema.Draft202012Validator(SCHEMAS[name], registry=REGISTRY).validate(data)


@pytest.mark.parametrize("name", SCHEMAS)
def test_the_schemas_are_schemas(name):
    jsonschema.Draft202012Validator.check_schema(SCHEMAS[name])


ARTICLE = ROOT / "fixtures" / "article" / "resnet18.pth"
RESNET50 = ROOT / "fixtures" / "resnet50"
REPORTS = {
    "broken": [RESNET50 / "model.manifest.json", RESNET50 / "dataparallel.pth"],
    "mapped": [
        RESNET50 / "model.manifest.json",
        RESNET50 / "dataparallel.pth",
        "--map",
        "module.* -> *",
        "--drop",
        "fc.*",
    ],
    "clean": [ARTICLE, ARTICLE],
    "models": ["torchvision.models:resnet18", ARTICLE, "--contract", "exact"],
    "witness": [ROOT / "fixtures/rules/CKPT906/fires" / n for n in ("model.py", "checkpoint.safetensors")]
    + ["--witness"],
    "values": [
        *(ROOT / "fixtures/rules/CKPT305/fires" / f"{n}.safetensors" for n in ("model", "checkpoint")),
        "--values",
    ],
    "no values": [RESNET50 / "model.manifest.json", RESNET50 / "dataparallel.pth", "--values", "--rtol", "1e-3"],
    "unchecked": [ARTICLE, "missing.pth"],
    "refused": [ARTICLE, "strange.pth"],
    "odd keys": [ARTICLE, "keys.pth"],
}


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("strange.pth").write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    odd = {"ключ.weight": 1, "quote\"'": 2, "back\\slash": 3, "tab\there": 4, "{1..4}": 5, "*": 6, "a b": 7}
    torch.save({key: torch.zeros(size) for key, size in odd.items() if key.isprintable()}, "keys.pth")


FROZEN = ROOT / "fixtures" / "rules" / "CKPT804"


@pytest.mark.parametrize("arguments", [[], ["backbone.*"], ["bakbone.*", "--trainable", "fc.*"]], ids=str)
def test_reports_of_frozen_follow_the_schema(arguments, capsys):
    files = [FROZEN / "fires" / f"{name}.safetensors" for name in ("base", "checkpoint")]
    text = printed(capsys, "frozen", *files, *arguments, "--format", "json")
    validate(json.loads(text), "report")
    assert text == printed(capsys, "frozen", *files, *arguments, "--format", "json")


def printed(capsys, *arguments):
    main(list(map(str, arguments)))
    return capsys.readouterr().out


@pytest.mark.parametrize("name", REPORTS)
def test_reports_follow_the_schema(name, capsys):
    text = printed(capsys, "diff", *REPORTS[name], "--format", "json")
    assert text.isascii()
    report = json.loads(text)
    validate(report, "report")
    assert report["exit_status"] == {"kept": 0, "broken": 1, "unchecked": 2}[report["verdict"]]
    assert text == printed(capsys, "diff", *REPORTS[name], "--format", "json")


PROJECT = """
baseline = "b.json"
[targets.net]
model = "net.json"
checkpoint = ["v*.json", "missing.pth"]
[[accept]]
rule = "CKPT201"
key = "*"
reason = "meant"
[[accept]]
rule = "CKPT101"
key = "*"
reason = "long ago"
expires = 2020-01-01
"""


def test_checks_and_baselines_follow_the_schema(capsys):
    Path("ckptaudit.toml").write_text(PROJECT)
    for name, sizes in (("net", (1, 2)), ("v1", (1, 2)), ("v2", (1, 3)), ("v3", (1,))):
        Manifest({f"w{n}": TensorSpec((size,), "float32") for n, size in enumerate(sizes)}).save(f"{name}.json")
    main(["check", "--add-to-baseline", "missing-key", "--format", "json"])
    text = capsys.readouterr().out
    data = json.loads(text)
    validate(data, "check")
    assert [(len(r["findings"]), len(r["accepted"])) for r in data["reports"]] == [(0, 0), (0, 1), (0, 1), (1, 0)]
    assert [finding["code"] for finding in data["findings"]] == ["CKPT907"]
    assert text == printed(capsys, "check", "--format", "json")
    baseline = json.loads(Path("b.json").read_text())
    assert set(baseline["findings"][0]) == {"target", "checkpoint", "code", "name", "keys", "fingerprint"}


@pytest.mark.parametrize("arguments", [[ARTICLE], [RESNET50 / "dataparallel.pth"], ["keys.pth"]], ids=str)
def test_inspections_follow_the_schema(arguments, capsys):
    validate(json.loads(printed(capsys, "inspect", *arguments, "--format", "json")), "inspect")


def test_an_inspection_without_a_choice_follows_the_schema(capsys):
    torch.save({"a": {"w": torch.zeros(2)}, "b": {"w": torch.zeros(2)}, "m": nn.Linear(2, 2)}, "two.pth")
    data = json.loads(printed(capsys, "inspect", "two.pth", "--format", "json"))
    validate(data, "inspect")
    assert data["choice"] is None
    assert [finding["code"] for finding in data["findings"]] == ["CKPT006", "CKPT701"]


def test_reports_of_training_follow_the_schema():
    model = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    report = ckptaudit.lint_training(model, optimizer, frozen=["weight", "head"])
    assert len(report.findings) == 2
    validate(json.loads(json.dumps(report.to_json())), "report")
    with ckptaudit.audit_training(model, optimizer, frozen="weight") as audit:
        model(torch.ones(1, 2)).sum().backward()
        optimizer.step()
    validate(json.loads(json.dumps(audit.report.to_json())), "report")


def test_scans_follow_the_schema(capsys):
    rules = ROOT / "fixtures" / "rules"
    text = printed(capsys, "scan", rules, "strange.pth", "--integrity", "--format", "json")
    data = json.loads(text)
    validate(data, "scan")
    assert {file["verdict"] for file in data["files"]} == {"safe", "unsafe", "malformed", "incomplete"}
    assert text == printed(capsys, "scan", rules, "strange.pth", "--integrity", "--format", "json")


@pytest.mark.parametrize(
    "options",
    [
        ["out.pth"],
        ["out.safetensors", "--shard-size", "30MB", "--map", "layer1.* -> stage.*", "--drop", "fc.*"],
        ["out.safetensors", "--dry-run", "--dtype", "float16", "--map", "tie other.weight = conv1.weight"],
    ],
)
def test_conversions_follow_the_schema(options, capsys):
    text = printed(capsys, "convert", ARTICLE, *options, "--format", "json")
    assert text.isascii()
    data = json.loads(text)
    validate(data, "convert")
    assert data["written"] == data["verified"] == ("--dry-run" not in options)
    for path in Path().glob("out*"):
        path.unlink()
    assert text == printed(capsys, "convert", ARTICLE, *options, "--format", "json")


@pytest.mark.parametrize("options", [[], ["--explain"]])
def test_mappings_follow_the_schema(options, capsys):
    renamed = ROOT / "fixtures" / "renamed"
    text = printed(capsys, "map", renamed / "old.pth", f"{renamed / 'model.py'}:Net", "--format", "json", *options)
    assert text.isascii()
    data = json.loads(text)
    validate(data, "mapping")
    assert {one["op"] for one in data["assignments"]} == {"copy", "concat(0)"}
    assert text == printed(capsys, "map", renamed / "old.pth", f"{renamed / 'model.py'}:Net", "--format", "json")
    validate(json.loads(printed(capsys, "map", "keys.pth", ARTICLE, "--format", "json")), "mapping")


NET = ROOT / "tests" / "training" / "bench" / "nets.py"
BENCH = ["bench", f"{NET}:Net", "--input", "2,3,16,16", "--format", "json"]


def test_plans_follow_the_schema(capsys):
    data = json.loads(printed(capsys, *BENCH, "--plan", "--timed"))
    validate(data, "plan")
    assert all(variant["cost"]["seconds"] for variant in data["variants"])


def test_benchmarks_follow_the_schema(capsys):
    data = json.loads(printed(capsys, *BENCH, "--rounds", "8", "--clock", "cpu"))
    validate(data, "bench")
    assert all(len(variant["measured"]["seconds"]) == 8 for variant in data["variants"])


def test_notes_follow_the_schema():
    class Net(nn.BatchNorm1d):
        def get_extra_state(self):
            return (1, {"a": b"x"})

        def set_extra_state(self, state):
            pass

    state = Net(2).state_dict()
    state |= {"tied": state["weight"], "view": state["bias"][1:], "p": nn.Parameter(torch.ones(1))}
    torch.save({"epoch": 1, "model": state}, "in.pth")
    main(["convert", "in.pth", "x.safetensors"])
    with safe_open("x.safetensors", "pt") as file:
        notes = json.loads(file.metadata()["ckptaudit"])
    validate(notes, "notes")
    assert set(notes) == set(SCHEMAS["notes"]["properties"]) - {"buffers"}


def test_manifests_follow_the_schema(capsys):
    with torch.device("meta"):
        model = nn.Sequential(nn.LSTM(2, 3), nn.BatchNorm2d(4), nn.LazyLinear(2))
    model.register_buffer("hidden", torch.zeros(2), persistent=False)
    Manifest.of(model).save("m.json")
    validate(json.loads(Path("m.json").read_text()), "manifest")
    assert Manifest.load("m.json") == Manifest.of(model)
    validate(json.loads(printed(capsys, "manifest", "show", ARTICLE, "--format", "json")), "manifest")


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("report", {"verdict": "fine"}),
        ("report", {"exit_status": 3}),
        ("report", {"extra": 1}),
        ("inspect", {"candidates": None}),
        ("convert", {"tensors": [{"key": "a"}]}),
        ("scan", {"files": [{"path": "x", "verdict": "good"}]}),
        ("mapping", {"assignments": [{"target": "a", "sources": [], "op": "copy", "confidence": 1}]}),
        ("mapping", {"rules": [1]}),
        ("manifest", {"tensors": [{"key": "a", "shape": [-1], "dtype": "float32"}]}),
    ],
)
def test_the_schemas_refuse(name, change, capsys):
    command = {
        "report": ["diff", ARTICLE, ARTICLE],
        "inspect": ["inspect", ARTICLE],
        "convert": ["convert", ARTICLE, "out.safetensors", "--dry-run"],
        "scan": ["scan", ARTICLE],
        "mapping": ["map", ARTICLE, ARTICLE],
        "manifest": ["manifest", "show", ARTICLE],
    }
    data = json.loads(printed(capsys, *command[name], "--format", "json"))
    validate(data, name)
    with pytest.raises(jsonschema.ValidationError):
        validate({**data, **change}, name)


SIZES = st.lists(st.integers(0, 9), max_size=4)
NAMES = st.text(max_size=6)


@st.composite
def specs(draw):
    shape = tuple(draw(SIZES))
    return TensorSpec(
        shape,
        draw(st.sampled_from(sorted(DTYPES))),
        kind=draw(st.sampled_from(KINDS)),
        stride=draw(st.none() | st.just(tuple(range(len(shape))))),
        storage_offset=draw(st.integers(0, 3)),
        storage=draw(st.none() | NAMES),
        storage_nbytes=draw(st.none() | st.integers(0, 1 << 60)),
        requires_grad=draw(st.none() | st.booleans()),
        layout=draw(st.sampled_from(["strided", "sparse_coo", "uninitialized"])),
        location=draw(st.none() | st.sampled_from(["cpu", "cuda:0"])),
        conj=draw(st.booleans()),
        neg=draw(st.booleans()),
    )


@st.composite
def manifests(draw):
    tensors = draw(st.dictionaries(NAMES, specs(), max_size=5))
    return Manifest(
        tensors,
        draw(st.dictionaries(NAMES.filter(lambda key: key not in tensors), NAMES, max_size=3)),
        draw(st.none() | st.dictionaries(NAMES, st.none() | st.integers(0, 5), max_size=3)),
        draw(st.dictionaries(NAMES, specs(), max_size=2)),
        draw(NAMES),
    )


@given(manifests())
@settings(max_examples=150, deadline=None)
def test_a_manifest_survives_json(manifest):
    data = json.loads(manifest.dumps())
    validate(data, "manifest")
    again = Manifest.from_json(data)
    assert again == manifest
    assert list(again.tensors) == list(manifest.tensors)


def test_a_crash_while_writing_leaves_the_old_manifest(monkeypatch):
    manifest = Manifest({"a": TensorSpec((1,), "float32")})
    manifest.save("m.json")
    before = Path("m.json").read_bytes()
    monkeypatch.setattr("ckptaudit.manifest.os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left")))
    with pytest.raises(Exception, match="cannot be written: No space left"):
        Manifest({}).save("m.json")
    assert Path("m.json").read_bytes() == before
    assert [path.name for path in Path().glob("*m.json*")] == ["m.json"]
