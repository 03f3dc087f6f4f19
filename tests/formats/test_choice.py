from __future__ import annotations

import pytest

from ckptaudit.errors import FormatError
from ckptaudit.formats.base import Candidate
from ckptaudit.formats.choice import choose
from ckptaudit.manifest import Manifest, TensorSpec


def candidate(path: str, tensors: int = 10, *, kind: str = "state_dict", entries: int = 0) -> Candidate:
    specs = {str(i): TensorSpec((1,), "float32") for i in range(tensors)}
    return Candidate(path, kind, Manifest(specs, {f"e{i}": "int" for i in range(entries)}))


def chosen(*candidates: Candidate, wanted: str = "") -> str:
    choice = choose(candidates, wanted=wanted, subject="x.pt")
    assert isinstance(choice, Candidate), choice
    return choice.path


def refused(*candidates: Candidate, wanted: str = "") -> FormatError:
    choice = choose(candidates, wanted=wanted, subject="x.pt")
    assert isinstance(choice, FormatError)
    assert choice.code == "CKPT006"
    assert choice.subject == "x.pt"
    return choice


@pytest.mark.parametrize(
    ("expected", "candidates"),
    [
        ("", [candidate("")]),
        ("", [candidate("", 10, entries=10), candidate("sub", 2)]),
        ("", [candidate(""), candidate("layer._extra_state", 3)]),
        ("model", [candidate("", 1, entries=5), candidate("model")]),
        ("model", [candidate("", 2, entries=1), candidate("model", 50)]),
        ("", [candidate("", 1, entries=5)]),
        ("weird.name", [candidate("weird.name"), candidate("optimizer", 20, kind="optimizer")]),
        ("state_dict", [candidate("state_dict"), candidate("state_dict_ema")]),
        ("model", [candidate("ema", 12), candidate("model")]),
        ("net", [candidate("averaged_model"), candidate("net"), candidate("model_ema")]),
        ("state_dict", [candidate("state_dict"), candidate("callbacks.SWA.average_model_state")]),
        ("ema", [candidate("ema")]),
        ("gen", [candidate("gen"), candidate("optimizer_g", 30)]),
        ("model", [candidate("model", 30, kind="module"), candidate("ema", 30, kind="module")]),
        ("state_dict", [candidate("state_dict", 30), candidate("head", 2)]),
        ("a.state_dict", [candidate("a.state_dict", 30), candidate("a.state_dict.x._extra_state", 2)]),
        ("schema", [candidate("schema")]),
    ],
)
def test_choices(expected: str, candidates: list[Candidate]) -> None:
    assert chosen(*candidates) == expected


def test_a_wanted_path_wins_over_everything() -> None:
    everything = (candidate("state_dict"), candidate("ema"), candidate("opt", kind="optimizer"))
    assert chosen(*everything, wanted="ema") == "ema"
    assert chosen(*everything, wanted="opt") == "opt"


def test_a_wanted_path_must_exist() -> None:
    error = refused(candidate("model"), candidate("ema", 1), wanted="mode")
    assert error.reason == "has no state dict at 'mode'; it has model (10 tensors), ema (1 tensor)"
    assert error.hint == "pick one: ckptaudit inspect 'x.pt#model'"
    error = refused(candidate(""), wanted="model")
    assert error.reason == "has no state dict at 'model'; it has none below its top level"
    assert error.hint == "leave out '#model'"


def test_equal_peers_are_not_chosen_from() -> None:
    error = refused(candidate("generator", 24), candidate("discriminator", 18))
    assert error.reason == ("holds 2 state dicts and no choice: generator (24 tensors), discriminator (18 tensors)")
    assert error.hint == "pick one: ckptaudit inspect 'x.pt#generator'"


@pytest.mark.parametrize(
    "candidates",
    [
        [candidate("model"), candidate("teacher")],
        [candidate("model", 5), candidate("backbone", 50)],
        [candidate("model", 50), candidate("net", 5)],
        [candidate("layer1"), candidate("layer2")],
    ],
)
def test_no_choice(candidates: list[Candidate]) -> None:
    assert refused(*candidates).reason.startswith("holds 2 state dicts and no choice: ")


def test_many_candidates_are_counted() -> None:
    error = refused(*(candidate(f"layer{i}") for i in range(8)))
    assert error.reason.startswith("holds 8 state dicts and no choice: layer0 (10 tensors), ")
    assert error.reason.endswith("layer4 (10 tensors) and 3 more")


def test_files_without_a_state_dict() -> None:
    error = refused(candidate("", 3, kind="tensors"))
    assert error.reason == "holds no state dict: 3 tensors, but no mapping of names to tensors"
    assert error.hint == "save a dict of names and tensors, as model.state_dict() returns it"
    error = refused(candidate("", 1, kind="tensors"), candidate("o", kind="optimizer"))
    assert error.reason == "holds no state dict: 1 tensor, but no mapping of names to tensors"
    error = refused(candidate("", 3, kind="optimizer"))
    assert error.reason == "holds the state of an optimizer, but no state dict of a model"
    error = refused()
    assert error.reason == "holds no tensors"
    assert error.hint == "name the file that holds the weights"
