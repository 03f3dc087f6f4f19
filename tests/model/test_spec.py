"""Model specs: what counts as one, what its parts are, and how its arguments are read."""

from __future__ import annotations

import pytest

from ckptaudit.errors import UsageError
from ckptaudit.model.spec import ModelSpec, looks_like_model_spec, parse_model_spec


@pytest.mark.parametrize(
    "text",
    [
        "model.py",
        "sub/dir/model.py",
        "model.py:Net",
        "model.py:Net.Inner",
        "/a/b/model.py:build",
        "pkg.module:factory",
        "torchvision.models:resnet50",
        "module:Net",
        r"C:\work\model.py",
        r"C:\work\model.py:Net",
        "C:/work/model.py:Net",
    ],
)
def test_model_specs_are_recognised(text):
    assert looks_like_model_spec(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "weights.pth",
        "runs/epoch:3.pth",
        "resnet50",
        "torchvision.models",
        "weights.pth#state_dict",
        "model.python",
        r"C:\work\weights.pth",
        "C:/work/weights.safetensors",
        "C:weights",
        "model.safetensors.index.json",
        "a b:c",
        "pkg.module:1x",
        "-",
    ],
)
def test_other_texts_are_not(text):
    assert not looks_like_model_spec(text)


def test_an_existing_file_with_a_colon_in_its_name_is_a_file(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert looks_like_model_spec("epoch:best")
    (tmp_path / "epoch:best").write_bytes(b"")
    assert not looks_like_model_spec("epoch:best")


@pytest.mark.parametrize(
    ("text", "file", "module", "attribute"),
    [
        ("model.py", "model.py", None, None),
        ("a/model.py:Net", "a/model.py", None, "Net"),
        (r"C:\work\model.py", r"C:\work\model.py", None, None),
        (r"C:\work\model.py:Net", r"C:\work\model.py", None, "Net"),
        ("pkg.module:factory", None, "pkg.module", "factory"),
        ("pkg:Outer.Inner", None, "pkg", "Outer.Inner"),
    ],
)
def test_parts(text, file, module, attribute):
    spec = parse_model_spec(text)
    assert (spec.text, spec.file, spec.module, spec.attribute) == (text, file, module, attribute)


def test_values_are_python_literals_or_text():
    given = [
        "n=10",
        "name=resnet",
        "sizes=(1, 2)",
        "ratio=-1e-3",
        "flag=True",
        "none=None",
        "quoted='3'",
        "eq=a=b",
    ]
    spec = parse_model_spec("model.py:Net", given)
    assert spec.arguments == {
        "n": 10,
        "name": "resnet",
        "sizes": (1, 2),
        "ratio": -1e-3,
        "flag": True,
        "none": None,
        "quoted": "3",
        "eq": "a=b",
    }


def test_text_that_python_cannot_even_tokenize_stays_text():
    assert parse_model_spec("model.py", ["a=(", "b=", "c=  x"]).arguments == {"a": "(", "b": "", "c": "  x"}


@pytest.mark.parametrize(
    ("argument", "reason"),
    [
        ("num_classes", "is not of the form NAME=VALUE"),
        ("=10", "is not of the form NAME=VALUE"),
        ("head.size=10", "'head.size' is no argument name"),
        ("class=10", "'class' is no argument name"),
    ],
)
def test_bad_arguments(argument, reason):
    with pytest.raises(UsageError) as caught:
        parse_model_spec("model.py:Net", [argument])
    assert caught.value.subject == f"--arg {argument}"
    assert caught.value.reason == reason
    assert caught.value.hint == "ckptaudit diff model.py:Net CHECKPOINT --arg num_classes=10"


def test_an_argument_given_twice():
    with pytest.raises(UsageError) as caught:
        parse_model_spec("model.py", ["n=1", "n=2"])
    assert (caught.value.subject, caught.value.reason) == ("--arg n=2", "'n' was given before")


@pytest.mark.parametrize("text", ["weights.pth", "model.py:", "pkg.module:", "model.py:a b", "pkg"])
def test_what_is_no_spec_is_a_usage_error(text):
    with pytest.raises(UsageError) as caught:
        parse_model_spec(text)
    assert caught.value.subject == text
    assert caught.value.reason == "is no model spec"
    assert caught.value.hint == "write it as model.py, model.py:Net or package.module:factory"


def test_commands_repeat_the_arguments_and_quote_for_a_shell():
    spec = parse_model_spec("my model.py", ["names=('a', 'b')"], "ckptaudit diff {model} runs/{best}.pth")
    assert spec.location == "my model.py"
    assert spec.command() == """ckptaudit diff 'my model.py' runs/{best}.pth --arg 'names=('"'"'a'"'"', '"'"'b'"'"')'"""
    assert spec.command("Net", n="10") == spec.command("Net") + " --arg n=10"


def test_string_arguments_survive_in_commands():
    spec = parse_model_spec("model.py:Net", ["name='3'", "other=x"])
    assert spec.command("Net") == """ckptaudit diff model.py:Net CHECKPOINT --arg 'name='"'"'3'"'"'' --arg other=x"""
    assert isinstance(spec, ModelSpec)
