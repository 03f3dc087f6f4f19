from __future__ import annotations

import os
import zipfile
from pathlib import Path

import pytest
import torch
from torch import nn
from torch_files import dumps, raw_bytes, read, rezip, storage_bytes

from ckptaudit.errors import FormatError
from ckptaudit.formats.base import DEFAULT_LIMITS, ByteSource
from ckptaudit.formats.torch_files.script import declared_state, is_script_record
from ckptaudit.formats.torch_files.zip_directory import read_zip_directory
from ckptaudit.records import replace

pytestmark = pytest.mark.filterwarnings("ignore")


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.arange(4))
        self.steps = [1, 2]
        self.memory = torch.zeros(2)  # a tensor, but no buffer: not in the state dict
        self.body = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.BatchNorm2d(4))
        self.tied = self.body

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x) + self.table.sum() + self.steps[0] + self.memory.sum()


def test_the_weights_are_those_of_jit_load(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(Net()), str(path))
    checkpoint = read(path)
    assert checkpoint.format == "torchscript"
    assert [(c.path, c.kind) for c in checkpoint.candidates] == [("", "module")]
    assert {g.verdict for g in checkpoint.globals} == {"allowed", "inert"}
    state = torch.jit.load(str(path)).state_dict()
    assert set(checkpoint.manifest.tensors) == set(state)
    for key, tensor in state.items():
        spec = checkpoint.manifest[key]
        assert (spec.shape, f"torch.{spec.dtype}", spec.stride) == (
            tuple(tensor.shape),
            str(tensor.dtype),
            tensor.stride(),
        )
        assert raw_bytes(checkpoint.tensor(key)) == storage_bytes(tensor)


def test_traced_and_optimized_modules(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(2, 3), nn.ReLU()).eval()
    traced = torch.jit.trace(model, torch.ones(1, 2))
    for name, script in {"traced": traced, "frozen": torch.jit.freeze(torch.jit.script(model))}.items():
        path = tmp_path / f"{name}.pt"
        torch.jit.save(script, str(path))
        assert set(read(path).manifest.tensors) == set(torch.jit.load(str(path)).state_dict())


def test_without_its_code_every_tensor_is_listed(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(Net()), str(path))
    with zipfile.ZipFile(path) as archive:
        code = tuple(name.partition("/")[2] for name in archive.namelist() if "/code/" in name)
    stripped = rezip(path, tmp_path / "stripped.pt", drop=code)
    assert set(read(stripped).manifest.tensors) == {*read(path).manifest.tensors, "memory"}


def test_code_that_unpacks_to_more_than_the_limit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(Net()), str(path))
    with pytest.raises(FormatError) as caught:
        read(path, limits=replace(DEFAULT_LIMITS, string_bytes=100))
    assert caught.value.code == "CKPT703"
    assert caught.value.reason.endswith(".debug_pkl is not read to its end: it has a string of 102 bytes")


def test_broken_code_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "net.pt"
    torch.jit.save(torch.jit.script(Net()), str(path))
    with zipfile.ZipFile(path) as archive:
        info = next(info for info in archive.infolist() if info.filename.endswith(f"{__name__}.py"))
        name = info.filename.partition("/")[2]
        assert info.compress_type == zipfile.ZIP_DEFLATED
    record = read_zip_directory(ByteSource(path), DEFAULT_LIMITS)[info.filename]
    data = bytearray(path.read_bytes())
    data[record.offset : record.offset + record.size] = b"\xff" * record.size
    path.write_bytes(data)
    with pytest.raises(FormatError) as caught:
        read(path)
    assert (caught.value.code, caught.value.reason) == (
        "CKPT002",
        f"is a broken torch archive: its record {name} does not unpack",
    )


def test_declared_state() -> None:
    code = """class Net(Module):
  __parameters__ = ["weight", "bias", ]
  __buffers__ = ["table", ]
  weight : Tensor
class Empty(Module):
  __parameters__ = []
  __buffers__ = []
class Plain(NamedTuple):
  weight : Tensor
"""
    assert declared_state(code, "__torch__.a") == {
        "__torch__.a.Net": frozenset({"weight", "bias", "table"}),
        "__torch__.a.Empty": frozenset(),
    }


# -- the other pickles --------------------------------------------------------------------------------


def refusal(path: Path) -> FormatError:
    with pytest.raises(FormatError) as caught:
        read(path)
    return caught.value


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A traced module: it has constants and the inputs of its trace."""
    path = tmp_path_factory.mktemp("script") / "traced.pt"
    torch.jit.save(torch.jit.trace(Net().eval(), torch.ones(1, 3, 3, 3)), str(path), _extra_files={"labels": "cat"})
    return path


@pytest.fixture(scope="module")
def mobile(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A module for the lite interpreter: its code once more, as a pickle, with the constants in common."""
    path = tmp_path_factory.mktemp("script") / "mobile.ptl"
    frozen = torch.jit.freeze(torch.jit.script(nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4)).eval()))
    frozen._c._save_for_mobile(str(path), {}, True, False)
    return path


PICKLES = {
    "traced": ["constants.pkl", "traced_inputs.pkl", "code/__torch__/torch/nn/modules/container.py.debug_pkl"],
    "mobile": [
        "bytecode.pkl",
        "mobile_debug_handles.pkl",
        "callstack_debug_map.pkl",
        "delegated_backends.debug_pkl",
    ],
}


class Odd:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch /tmp/never",)


class Mine:
    pass


def test_real_archives_hold_nothing_unknown(traced: Path, mobile: Path) -> None:
    for path in (traced, mobile):
        checkpoint = read(path)
        assert {g.verdict for g in checkpoint.globals} <= {"allowed", "inert"}
        assert [remark.code for remark in checkpoint.remarks] == ["CKPT709"]
        with zipfile.ZipFile(path) as archive:
            names = {name.partition("/")[2] for name in archive.namelist()}
        assert any(name.startswith("constants/") for name in names)
        unknown = {name for name in names if not is_script_record(name)}
        assert all(name.rpartition("/")[0] in ("data", "constants", "traced_inputs", ".data", "") for name in unknown)
        assert {name for name in unknown if "/" not in name} == {"byteorder", "data.pkl", "version"}


@pytest.mark.parametrize(("kind", "name"), [(kind, name) for kind, names in PICKLES.items() for name in names])
def test_every_pickle_is_judged(kind: str, name: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    path = request.getfixturevalue(kind)
    bad = rezip(path, tmp_path / "bad.pt", replace={name: dumps(Odd())})
    error = refusal(bad)
    assert (error.code, error.reason) == ("CKPT702", "runs code when it is unpickled: it names posix.system")
    found = {g.name: g for g in read(bad, allow_refused=True).globals}["posix.system"]
    assert (found.verdict, found.member) == ("dangerous", f"{path.stem}/{name}")
    unknown = refusal(rezip(path, tmp_path / "unknown.pt", replace={name: dumps(Mine())}))
    assert (unknown.code, unknown.reason.rpartition(" ")[2]) == ("CKPT701", f"{__name__}.Mine")
    tail = refusal(rezip(path, tmp_path / "tail.pt", replace={name: dumps(1) + b"x"}))
    assert (tail.code, tail.reason) == (
        "CKPT704",
        f"is a broken torch archive: 1 bytes follow the pickle in its {name}",
    )


def test_packed_pickles_are_judged(mobile: Path, tmp_path: Path) -> None:
    """The C++ writer packs what is larger than a few lines."""
    path = rezip(mobile, tmp_path / "packed.pt", replace={"callstack_debug_map.pkl": dumps(Odd())})
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(tmp_path / "x.pt", "w") as target:
        for info in source.infolist():
            packed = info.filename.endswith("debug_map.pkl")
            target.writestr(info.filename, source.read(info), zipfile.ZIP_DEFLATED if packed else zipfile.ZIP_STORED)
    assert refusal(tmp_path / "x.pt").code == "CKPT702"


def test_plain_data_is_listed_once_and_what_is_refused_at_every_place(traced: Path, tmp_path: Path) -> None:
    odd = dict.fromkeys(["constants.pkl", "traced_inputs.pkl"], dumps(Odd()))
    found = read(rezip(traced, tmp_path / "bad.pt", replace=odd), allow_refused=True).globals
    names = [g.name for g in found]
    assert names.count("torch._utils._rebuild_tensor_v2") == 1
    assert names.count("posix.system") == 2


def constant(numel: int, size: int, key: str = "0") -> bytes:
    """Return a constants.pkl: one tensor of ``size`` elements in a storage of ``numel``."""
    tensor = (
        f"ctorch._utils\n_rebuild_tensor_v2\n((X\x07\0\0\0storagectorch\nFloatStorage\nX{chr(len(key))}\0\0\0{key}"
        f"X\x03\0\0\0cpuK{chr(numel)}tQK\0K{chr(size)}\x85K\x01\x85\x89ccollections\nOrderedDict\n)RtR\x85."
    )
    return b"\x80\x02" + tensor.encode("latin1")


@pytest.mark.parametrize(
    ("numel", "size", "key", "reason"),
    [
        (3, 3, "0", None),
        (4, 4, "0", "its pickle gives the storage '0' 16 bytes, the record has 12"),
        (3, 4, "0", "tensor 'constants.0' needs 16 bytes of storage '0', which holds 12"),
        (3, 3, "7", "it has no record constants/7"),
        (3, 3, "0.storage", "it has no record constants/0.storage"),
        (3, 3, "../data/0", "has a persistent id that is no storage: its key is no number"),
    ],
)
def test_constants_fit_their_records(tmp_path: Path, numel: int, size: int, key: str, reason: str | None) -> None:
    path = tmp_path / "relu.pt"
    torch.jit.save(torch.jit.script(nn.ReLU()), str(path))
    records = {"constants.pkl": constant(numel, size, key), "constants/0": b"x" * 12}
    made = rezip(path, tmp_path / "made.pt", replace=records)
    if reason is None:
        assert [remark.code for remark in read(made).remarks] == ["CKPT709"]
    else:
        error = refusal(made)
        assert (error.code, error.reason.removeprefix("is a broken torch archive: ")) == ("CKPT002", reason)


def test_unknown_records_are_remarked(traced: Path, tmp_path: Path) -> None:
    more = {"constants/99": b"x", "data/99": b"x", "code/run.sh": b"x", "notes.txt": b"x", "extra/readme": b"x"}
    remark = read(rezip(traced, tmp_path / "more.pt", replace=more)).remarks[0]
    assert (remark.code, remark.keys) == ("CKPT707", ("code/run.sh", "constants/99", "data/99", "notes.txt"))
    assert remark.reason.endswith(" and 1 more) that nothing refers to")


def test_the_program_is_remarked(traced: Path, tmp_path: Path) -> None:
    (remark,) = read(traced).remarks
    with zipfile.ZipFile(traced) as archive:
        count = sum(name.endswith(".py") for name in archive.namelist())
    assert remark.reason == (
        f"holds TorchScript code in {count} records, which runs when the loaded module is called; "
        "only its weights were judged"
    )

    class Restored(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.steps = 3

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x + self.steps

        @torch.jit.export
        def __getstate__(self) -> tuple[int, bool]:
            return self.steps, self.training

        @torch.jit.export
        def __setstate__(self, state: tuple[int, bool]) -> None:
            self.steps = state[0] + 1
            self.training = state[1]

    path = tmp_path / "restored.pt"
    torch.jit.save(torch.jit.script(Restored()), str(path))
    assert torch.jit.load(str(path)).steps == 4
    (remark,) = read(path).remarks
    assert remark.reason == (
        "holds TorchScript code in 1 record, which runs as the file is loaded (__setstate__) "
        "and when the loaded module is called; only its weights were judged"
    )


def test_two_layouts_at_once_are_refused(traced: Path, tmp_path: Path) -> None:
    for name in ("model.json", "MODEL.JSON"):
        assert refusal(rezip(traced, tmp_path / "x.pt", replace={name: b"{}"})).reason == (
            "is a broken torch archive: it has the layouts of TorchScript before and since torch 1.4 at once"
        )


def test_names_that_differ_in_case_are_refused(traced: Path, tmp_path: Path) -> None:
    path = rezip(traced, tmp_path / "x.pt", replace={"BYTECODE.pkl": dumps(Odd())})
    assert refusal(path).reason == "is a broken torch archive: its record BYTECODE.pkl would be bytecode.pkl to torch"


def test_pickles_inside_of_pickles_are_remarked(traced: Path, tmp_path: Path) -> None:
    inner = dumps((dumps(Odd()).decode("latin1").encode("latin1"),), 4)
    path = rezip(traced, tmp_path / "x.pt", replace={"bytecode.pkl": inner})
    assert "CKPT707" in {remark.code for remark in read(path).remarks}
