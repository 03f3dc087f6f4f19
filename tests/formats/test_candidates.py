from __future__ import annotations

import collections
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_files import dumps, facts, pickled, read, rezip, save

from ckptaudit.errors import FormatError
from ckptaudit.formats.base import DEFAULT_LIMITS, Checkpoint, Limits
from ckptaudit.formats.candidates import Found, component, find_candidates, unique
from ckptaudit.formats.pickles.machine import run
from ckptaudit.formats.pickles.nodes import Call, GlobalRef, PDict
from ckptaudit.formats.pickles.rebuild import Rebuilder, storage_of_id


def shapes(checkpoint: Checkpoint) -> dict[str, tuple[str, list[str]]]:
    return {c.path: (c.kind, list(c.manifest.tensors)) for c in checkpoint.candidates}


def find(value: object, limits: Limits = DEFAULT_LIMITS) -> Found:
    """Walk a value that holds no tensors, or a pickle of one."""
    data = value if isinstance(value, bytes) else dumps(value)
    tree = run(data, subject="x.pt", member="data.pkl", limits=limits).value
    rebuilder = Rebuilder("x.pt", lambda pid: storage_of_id(pid, "x.pt"), limits)
    return find_candidates(tree, rebuilder, subject="x.pt", limits=limits)


def model() -> nn.Module:
    return nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))


KEYS = [
    "0.weight",
    "0.bias",
    "1.weight",
    "1.bias",
    "1.running_mean",
    "1.running_var",
    "1.num_batches_tracked",
]


def test_the_top_level(tmp_path: Path) -> None:
    checkpoint = read(save(model().state_dict(), tmp_path / "x.pt"))
    assert shapes(checkpoint) == {"": ("state_dict", KEYS)}
    assert checkpoint.siblings == {}
    assert checkpoint.manifest.source == str(tmp_path / "x.pt")


def test_containers_at_any_depth_and_what_lies_beside_them(tmp_path: Path) -> None:
    value = {"epoch": 3, "run": {"args": ["a"], "nets": [{"weights": model().state_dict()}, 7]}, "best": 0.5}
    checkpoint = read(save(value, tmp_path / "x.pt"))
    assert shapes(checkpoint) == {"run.nets.0.weights": ("state_dict", KEYS)}
    assert checkpoint.chosen.path == "run.nets.0.weights"
    assert checkpoint.manifest.versions == {"": 1, "0": 1, "1": 2}
    assert checkpoint.manifest.source == f"{tmp_path / 'x.pt'}#run.nets.0.weights"
    assert checkpoint.siblings == {"epoch": "int", "best": "float", "run.args": "list"}


def test_every_kind_of_mapping(tmp_path: Path) -> None:
    default = collections.defaultdict(list, a=torch.ones(1))
    value = {
        "dict": {"a": torch.ones(1)},
        "ordered": collections.OrderedDict(a=torch.ones(1)),
        "default": default,
    }
    checkpoint = read(save(value, tmp_path / "x.pt"))
    assert list(shapes(checkpoint)) == ["dict", "ordered", "default"]


def test_a_mapping_reached_twice_is_reported_once(tmp_path: Path) -> None:
    shared = model().state_dict()
    checkpoint = read(save({"model": shared, "again": shared}, tmp_path / "x.pt"))
    assert shapes(checkpoint) == {"model": ("state_dict", KEYS)}


def test_values_that_are_no_tensors_are_entries(tmp_path: Path) -> None:
    value = {"w": torch.ones(1), "step": 3, "sub": {"v": torch.ones(1)}, 7: "x"}
    checkpoint = read(save(value, tmp_path / "x.pt"))
    assert shapes(checkpoint) == {"": ("state_dict", ["w"]), "sub": ("state_dict", ["v"])}
    assert checkpoint.candidates[0].manifest.entries == {"step": "int", "sub": "dict", "7": "str"}


def test_optimizer_states_are_one_candidate_each(tmp_path: Path) -> None:
    net = model()
    optimizer = torch.optim.Adam(net.parameters())
    net(torch.ones(2, 2)).sum().backward()
    optimizer.step()
    value = {"model": net.state_dict(), "optimizers": [optimizer.state_dict()]}
    checkpoint = read(save(value, tmp_path / "x.pt"))
    kind, keys = shapes(checkpoint)["optimizers.0"]
    assert (kind, len(keys)) == ("optimizer", 12)
    assert keys[:3] == ["state.0.step", "state.0.exp_avg", "state.0.exp_avg_sq"]
    assert checkpoint.chosen.path == "model"


def test_an_optimizer_alone(tmp_path: Path) -> None:
    value = {"state": {0: {"step": torch.tensor(1.0)}}, "param_groups": [{"params": [0]}]}
    checkpoint = read(save(value, tmp_path / "x.pt"))
    assert shapes(checkpoint) == {"": ("optimizer", ["state.0.step"])}


@pytest.mark.parametrize(
    ("value", "keys"),
    [
        (torch.ones(2), ["tensor"]),
        ([torch.ones(1), torch.ones(2)], ["0", "1"]),
        ((3, {0: torch.ones(1)}), ["1.0"]),
        ([{"a": 1}, {1: {2: torch.ones(1)}}], ["1.1.2"]),
        ({(0, 1): torch.ones(1), (0, "a"): torch.ones(1)}, ["(0, 1)", "(0, a)"]),
        ({1: torch.ones(1), "1": torch.ones(1)}, ["1", "1~2"]),
        (collections.deque([torch.ones(1)]), ["0"]),
    ],
)
def test_tensors_without_a_mapping_of_names(value: object, keys: list[str], tmp_path: Path) -> None:
    checkpoint = read(save(value, tmp_path / "x.pt"))
    assert shapes(checkpoint) == {"": ("tensors", keys)}
    assert set(checkpoint.raw[""]) == set(keys)
    with pytest.raises(FormatError, match="holds no state dict"):
        _ = checkpoint.manifest


def test_loose_tensors_beside_a_state_dict_are_no_candidate(tmp_path: Path) -> None:
    checkpoint = read(save([torch.ones(1), {"w": torch.ones(1)}], tmp_path / "x.pt"))
    assert list(shapes(checkpoint)) == ["1"]


def test_two_candidates_at_one_path(tmp_path: Path) -> None:
    value = {"a.b": {"v": torch.ones(1)}, "a": {"b": {"w": torch.ones(1)}}}
    checkpoint = read(save(value, tmp_path / "x.pt"))
    assert shapes(checkpoint) == {"a.b": ("state_dict", ["v"]), "a.b~2": ("state_dict", ["w"])}


def test_namespaces_and_other_objects_are_looked_into(tmp_path: Path) -> None:
    import argparse

    value = argparse.Namespace(lr=0.1, weights={"w": torch.ones(1)})
    assert list(shapes(read(save(value, tmp_path / "x.pt")))) == ["weights"]


def test_broken_tensors_outside_every_candidate_are_refused(tmp_path: Path) -> None:
    path = save([3, [torch.ones(4, 4)]], tmp_path / "x.pt")
    broken = pickled(path).replace(b"K\x04K\x04\x86", b"K\x04K\x05\x86")
    with pytest.raises(FormatError, match=r"tensor '1\.0' needs 68 bytes of storage '0', which holds 64"):
        read(rezip(path, tmp_path / "y.pt", replace={"data.pkl": broken}))


def test_unprintable_keys_are_refused_for_tensors_and_escaped_elsewhere(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match=r"key that is no printable text: w\\u202egnp"):
        read(save({"w\u202egnp": torch.ones(1)}, tmp_path / "x.pt"))
    checkpoint = read(save({"w": torch.ones(1), "\x1b[2J": 1}, tmp_path / "x.pt"))
    assert checkpoint.manifest.entries == {"\\x1b[2J": "int"}


def test_versions_need_metadata_of_the_usual_form(tmp_path: Path) -> None:
    value = model().state_dict()
    value._metadata = {"": {"version": "2"}, "a": {}, "b": 3}  # type: ignore[attr-defined]
    assert read(save(value, tmp_path / "x.pt")).manifest.versions == {"": None, "a": None, "b": None}
    value._metadata = 3  # type: ignore[attr-defined]
    assert read(save(value, tmp_path / "x.pt")).manifest.versions is None
    assert read(save(dict(value), tmp_path / "x.pt")).manifest.versions is None


def test_attributes_that_hide_methods_are_refused(tmp_path: Path) -> None:
    value = model().state_dict()
    value.move_to_end = 3  # type: ignore[attr-defined]
    with pytest.raises(
        FormatError, match=r"sets the attribute 'move_to_end' of one collections.OrderedDict, which hides a method"
    ):
        read(save(value, tmp_path / "x.pt"))


def doubled(times: int) -> object:
    value: object = {"leaf": 1}
    for number in range(times):
        value = [value, value] if number % 2 else {"left": value, "right": value}
    return value


def test_paths_are_counted_and_containers_walked_once() -> None:
    paths = 2**11 - 1  # 1, 3, 7, ...: every level has the paths of the one below twice, and its own
    assert find(doubled(10), Limits(paths=paths)).candidates == ()
    with pytest.raises(FormatError) as caught:
        find(doubled(10), Limits(paths=paths - 1))
    assert (caught.value.code, caught.value.subject) == ("CKPT703", "x.pt")
    assert caught.value.reason == "holds more than 2,046 paths to containers and tensors"
    assert caught.value.hint is not None
    assert caught.value.hint.startswith("raise it if you trust the file: --limit paths=")
    with pytest.raises(FormatError, match="holds more than 200,000 paths"):
        find(doubled(200))


@pytest.mark.parametrize(
    "data",
    [
        b"\x80\x02]q\x00h\x00a.",  # a list in itself
        b"\x80\x02}q\x00X\x01\x00\x00\x00a](h\x00es.",  # a dict in a list in itself
        b"\x80\x02ccollections\nOrderedDict\n)Rq\x00(X\x01\x00\x00\x00ah\x00u.",
        b"\x80\x04\x8f\x94(h\x00\x90.",
    ],
)
def test_a_container_that_holds_itself_is_refused(data: bytes) -> None:
    with pytest.raises(FormatError, match=r"holds a .* that holds itself") as caught:
        find(data)
    assert caught.value.code == "CKPT002"


def test_objects_may_refer_to_what_holds_them() -> None:
    build = b"\x80\x02ca.Net\nNet\n)\x81q\x00}q\x01(X\x04\x00\x00\x00self"
    assert find(build + b"](h\x00h\x00eX\x01\x00\x00\x00dh\x01ub.").candidates == ()


def test_depth_and_length_are_limited() -> None:
    with pytest.raises(FormatError, match="holds containers nested deeper than 512") as caught:
        find(b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b".")
    assert caught.value.code == "CKPT703"
    with pytest.raises(FormatError, match="holds a path of more than 4,096 characters"):
        find({"a" * 3000: {"b" * 3000: []}})
    with pytest.raises(FormatError, match="holds paths of more than 4,000 characters together"):
        find({"a" * 40: {str(i): [i] for i in range(100)}}, Limits(path_text=4000))


def test_many_things_of_one_name_are_told_apart_in_time() -> None:
    found = find(b"\x80\x02}(" + b"ca\nB\n)R}" * 20_000 + b"u.")  # {a.B(): {}, a.B(): {}, ...}
    assert found.siblings(None) == {"a.B": "dict"}
    assert [unique("a", {"a", "a~2"}, repeats) for repeats in ({}, {"a": 5})] == ["a~3", "a~6"]


def test_siblings_without_a_choice_are_the_top_level() -> None:
    assert find({"a": 1, "b": [2]}).siblings(None) == {"a": "int", "b": "list"}
    assert find([1]).siblings(None) == {}


def test_components() -> None:
    ref = GlobalRef("a.B")
    keys = ["a b", b"a", b"\xff", 3, True, 2**70, 1.5, None, (1, "a"), (1, (2,)), ref, Call(ref, ()), PDict()]
    texts = ["a b", "a", "\\xff", "3", "True", "int", "1.5", "None", "(1, a)", "tuple", "a.B", "a.B", "dict"]
    assert [component(key) for key in keys] == texts


def test_unique_names() -> None:
    assert [unique("a", taken) for taken in ({}, {"a"}, {"a", "a~2"})] == ["a", "a~2", "a~3"]


def test_descriptions_are_those_of_the_rebuilder(tmp_path: Path) -> None:
    checkpoint = read(save({"x": {"w": torch.ones(2, 3)[0]}}, tmp_path / "x.pt"))
    assert facts(checkpoint.manifest["w"])["stride"] == (1,)
