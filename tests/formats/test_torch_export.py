"""Archives of torch.export: what torch.export.load shows, read without running what it would run."""

from __future__ import annotations

import copy
import io
import json
import os
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch._export.serde.serialize import _SERIALIZE_TO_TORCH_DTYPE, serialize
from torch.export.pt2_archive._package import PT2ArchiveWriter, load_pt2, package_pt2
from torch_files import dumps, raw_bytes, read, storage_bytes

from ckptaudit.errors import FormatError
from ckptaudit.formats import Checkpoint, open_checkpoint
from ckptaudit.formats.base import DEFAULT_LIMITS
from ckptaudit.formats.torch_files.export import is_export_record
from ckptaudit.formats.torch_files.export_payloads import SCALAR_TYPES
from ckptaudit.records import replace

pytestmark = pytest.mark.filterwarnings("ignore")

WEIGHTS = "data/weights/model_weights_config.json"
CONSTANTS = "data/constants/model_constants_config.json"
INPUTS = "data/sample_inputs/model.pt"
PROGRAM = "models/model.json"


class Net(nn.Module):
    """Parameters, ties, views, every dtype, what is not in the state dict, and what has no bytes."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Linear(3, 4)
        self.tied = nn.Linear(3, 4, bias=False)
        self.tied.weight = self.a.weight
        self.frozen = nn.Parameter(torch.ones(3), requires_grad=False)
        whole = torch.arange(24.0)
        self.register_buffer("whole", whole)
        self.register_buffer("part", whole[4:10].view(2, 3).t())
        self.register_buffer("flipped", torch.arange(12.0).reshape(3, 4).t())
        self.register_buffer("spread", torch.zeros(3).expand(4, 3))
        self.register_buffer("scalar", torch.tensor(7))
        self.register_buffer("empty", torch.zeros(0, 3))
        self.register_buffer("hidden", torch.ones(4), persistent=False)
        self.constant = torch.full((4,), 3.0)
        for name in SCALAR_TYPES.values():
            self.register_buffer(f"of_{name}", bits(getattr(torch, name)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.a(x) + self.tied(x) + self.hidden + self.constant


def bits(dtype: torch.dtype) -> torch.Tensor:
    if dtype is torch.bool:
        return torch.tensor([True, False, True])
    size = torch.empty(0, dtype=dtype).element_size()
    return torch.arange(1, 1 + 3 * size, dtype=torch.uint8).view(dtype)


class Small(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.l = nn.Linear(3, 4)
        self.register_buffer("hidden", torch.ones(4), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.l(x) + self.hidden


@pytest.fixture(scope="module")
def program() -> torch.export.ExportedProgram:
    return torch.export.export(Small(), (torch.ones(2, 3),))


@pytest.fixture(scope="module")
def small(program: torch.export.ExportedProgram, tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("export") / "small.pt2"
    torch.export.save(program, path)
    return path


@pytest.fixture(scope="module")
def dynamic(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A program with symbolic sizes."""
    batch = torch.export.Dim("batch", min=2, max=64)

    class Doubled(Small):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return super().forward(x).repeat(2, 1) + x.shape[0]

    exported = torch.export.export(Doubled(), (torch.ones(5, 3),), dynamic_shapes=({0: batch},))
    path = tmp_path_factory.mktemp("export") / "dynamic.pt2"
    torch.export.save(exported, path)
    return path


Change = bytes | None | Callable[[Any], object]


def edited(path: Path, tmp_path: Path, method: int = 0, **changes: Change) -> Path:
    """Write the archive again: a record as bytes, without a record (None), or with its JSON changed in place."""
    out = tmp_path / "edited.pt2"
    with zipfile.ZipFile(path) as source, zipfile.ZipFile(out, "w") as target:
        top = source.namelist()[0].partition("/")[0]
        names = [name.partition("/")[2] for name in source.namelist()]
        for name in [*names, *(name for name in changes if name not in names)]:
            change = changes.get(name, b"")
            if name not in changes:
                change = source.read(f"{top}/{name}")
            elif callable(change):
                value = json.loads(source.read(f"{top}/{name}"))
                change(value)
                change = json.dumps(value).encode()
            if change is not None:
                target.writestr(f"edited/{name}", change, method if name in changes else 0)
    return out


def refusal(path: Path, **options: Any) -> FormatError:
    with pytest.raises(FormatError) as caught:
        read(path, **options)
    assert caught.value.hint
    return caught.value


def assert_same(checkpoint: Checkpoint, state: dict[str, torch.Tensor], path: str = "") -> None:
    """Compare a candidate with what torch has loaded: order, geometry, bytes, and who shares memory with whom."""
    manifest = next(c.manifest for c in checkpoint.candidates if c.path == path)
    assert list(manifest.tensors) == list(state)
    memory: dict[int, set[str]] = {}
    for key, tensor in state.items():
        spec = manifest[key]
        assert spec.shape == tuple(tensor.shape), key
        assert (spec.dtype, spec.location) == (str(tensor.dtype).removeprefix("torch."), "cpu"), key
        assert (spec.stride, spec.storage_offset) == (tensor.stride(), tensor.storage_offset()), key
        assert spec.requires_grad is tensor.requires_grad, key
        assert (spec.kind == "parameter") is isinstance(tensor, nn.Parameter), key
        assert spec.storage_nbytes == tensor.untyped_storage().nbytes(), key
        assert raw_bytes(checkpoint.raw[path][key]) == storage_bytes(tensor), key
        if spec.storage_nbytes:
            memory.setdefault(tensor.untyped_storage().data_ptr(), set()).add(str(spec.storage))
    assert all(len(names) == 1 for names in memory.values())
    assert len(set().union(*memory.values())) == len(memory)


# -- what torch shows ---------------------------------------------------------------------------------


def test_the_state_dict_is_that_of_torch(tmp_path: Path) -> None:
    path = tmp_path / "net.pt2"
    torch.export.save(torch.export.export(Net(), (torch.ones(2, 3),)), path)
    checkpoint = read(path)
    assert checkpoint.format == "torch-export"
    assert [(c.path, c.kind) for c in checkpoint.candidates] == [("", "state_dict")]
    assert_same(checkpoint, torch.export.load(path).state_dict)
    assert checkpoint.manifest.ties() == [("a.weight", "tied.weight")]
    assert ("whole", "part") in checkpoint.manifest.shared_storages()
    assert not {"hidden", "constant"} & set(checkpoint.manifest)
    assert checkpoint.details == {"archive version": "0", "byteorder": "little", "constants": "2"}
    assert checkpoint.manifest.versions is None
    assert [remark.code for remark in checkpoint.remarks] == ["CKPT709"]


def test_the_codes_of_dtypes_are_those_of_torch() -> None:
    ours = {code: getattr(torch, name) for code, name in SCALAR_TYPES.items()}
    assert ours == {int(code): dtype for code, dtype in _SERIALIZE_TO_TORCH_DTYPE.items()}


def test_it_is_recognised_by_its_content(program: torch.export.ExportedProgram, tmp_path: Path) -> None:
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={"labels.txt": "cat\ndog"})
    path = tmp_path / "weights.bin"
    path.write_bytes(buffer.getvalue())
    checkpoint = open_checkpoint(path)
    assert (checkpoint.format, list(checkpoint.manifest)) == ("torch-export", ["l.weight", "l.bias"])
    assert [remark.code for remark in checkpoint.remarks] == ["CKPT709"]


def test_symbolic_sizes_of_a_program(dynamic: Path) -> None:
    checkpoint = read(dynamic)
    assert_same(checkpoint, torch.export.load(dynamic).state_dict)
    assert [remark.code for remark in checkpoint.remarks] == ["CKPT709"]


def test_several_programs(program: torch.export.ExportedProgram, small: Path, tmp_path: Path) -> None:
    path = tmp_path / "two.pt2"
    other = torch.export.export(nn.Linear(2, 2), (torch.ones(1, 2),))
    package_pt2(path, exported_programs={"encoder/a": program, "decoder": other})
    checkpoint = read(path, "decoder")
    assert [c.path for c in checkpoint.candidates] == ["encoder/a", "decoder"]
    for name, loaded in load_pt2(path).exported_programs.items():
        assert_same(checkpoint, loaded.state_dict, name)
    assert list(checkpoint.manifest) == ["weight", "bias"]
    assert checkpoint.manifest.source == f"{path}#decoder"
    assert [remark.reason for remark in checkpoint.remarks] == [
        "holds 2 exported programs, which run when they are called; only their weights were judged"
    ]
    assert isinstance(read(path).choice, FormatError)
    assert refusal_of_choice(read(small, "model")) == "has no state dict at 'model'; it has none below its top level"


def refusal_of_choice(checkpoint: Checkpoint) -> str:
    assert isinstance(checkpoint.choice, FormatError)
    return checkpoint.choice.reason


def test_a_program_without_weights(tmp_path: Path) -> None:
    path = tmp_path / "relu.pt2"
    torch.export.save(torch.export.export(nn.ReLU(), (torch.ones(2),)), path)
    assert len(read(path).manifest) == 0


def test_an_archive_without_a_program(tmp_path: Path) -> None:
    path = tmp_path / "extra.pt2"
    package_pt2(path, extra_files={"a.txt": "a"}, executorch_files={"m.pte": b"ET12"})
    checkpoint = read(path)
    assert (checkpoint.candidates, checkpoint.remarks) == ((), ())
    assert refusal_of_choice(checkpoint) == "holds no exported program"


# -- older layouts ------------------------------------------------------------------------------------


def old_layout(program: torch.export.ExportedProgram, path: Path, suffix: str, **records: bytes) -> Path:
    """What torch.export.save of torch 2.1 (json) to 2.7 (pt) writes."""
    artifact = serialize(program)
    parts = {
        "serialized_exported_program.json": artifact.exported_program,
        f"serialized_state_dict.{suffix}": artifact.state_dict,
        f"serialized_constants.{suffix}": artifact.constants,
        "serialized_example_inputs.pt": artifact.example_inputs,
        "version": b"8.20",
        "extra_files/labels.txt": b"cat",
    }
    with zipfile.ZipFile(path, "w") as target:
        for name, data in (parts | records).items():
            target.writestr(name, data)
    return path


@pytest.mark.parametrize("suffix", ["pt", "json"])
def test_the_layout_of_torch_2_1_to_2_7(
    program: torch.export.ExportedProgram, suffix: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = old_layout(program, tmp_path / "old.pt2", suffix)
    checkpoint = read(path)
    assert checkpoint.format == "torch-export"
    assert_same(checkpoint, torch.export.load(path).state_dict)
    assert checkpoint.details == {"archive version": "8.20", "byteorder": "little"}
    assert [remark.reason for remark in checkpoint.remarks] == [
        "holds an exported program (serialized_exported_program.json), which runs when the loaded module is called; "
        "only its weights were judged"
    ]
    assert checkpoint.globals[0].member == f"serialized_state_dict.{suffix}:archive/data.pkl"


def test_the_oldest_layout_has_no_constants_and_inputs(program: torch.export.ExportedProgram, tmp_path: Path) -> None:
    artifact = serialize(program)
    path = tmp_path / "old.pt2"
    with zipfile.ZipFile(path, "w") as target:
        target.writestr("serialized_exported_program.json", artifact.exported_program)
        target.writestr("serialized_state_dict.json", artifact.state_dict)
        target.writestr("version", b"1")
    assert list(read(path).manifest) == ["l.weight", "l.bias"]


def test_faults_of_the_old_layout(program: torch.export.ExportedProgram, tmp_path: Path) -> None:
    both = old_layout(program, tmp_path / "both.pt2", "pt", **{"serialized_state_dict.json": b"x"})
    assert refusal(both).reason == (
        "is a broken torch archive: it has two records for one thing: "
        "serialized_state_dict.json and serialized_state_dict.pt"
    )
    without = tmp_path / "without.pt2"
    with zipfile.ZipFile(without, "w") as target:
        target.writestr("serialized_exported_program.json", b"{}")
    assert refusal(without).reason == "is a broken torch archive: it has no record serialized_state_dict.pt"
    listed = old_layout(program, tmp_path / "list.pt2", "pt", **{"serialized_state_dict.pt": saved([torch.ones(1)])})
    assert refusal(listed).reason == "is a broken torch archive: its serialized_state_dict.pt holds no state dict"
    unknown = old_layout(program, tmp_path / "unknown.pt2", "pt", **{"payload.pkl": b"x"})
    assert read(unknown).remarks[0].keys == ("payload.pkl",)
    mixed = old_layout(program, tmp_path / "mixed.pt2", "pt", **{"package/data/aotinductor/model/m.so": b"x"})
    assert refusal(mixed).reason == "is a broken torch archive: it has the records of two layouts"


def test_the_layout_of_the_first_archives(program: torch.export.ExportedProgram, tmp_path: Path) -> None:
    """Torch 2.8: the records of today, around whole files of torch.save."""
    artifact = serialize(program)
    path = tmp_path / "first.pt2"
    with PT2ArchiveWriter(str(path)) as writer:
        writer.write_bytes(PROGRAM, artifact.exported_program)
        writer.write_bytes("data/weights/model.pt", artifact.state_dict)
        writer.write_bytes("data/constants/model.pt", artifact.constants)
        writer.write_bytes(INPUTS, artifact.example_inputs)
    checkpoint = read(path)
    assert_same(checkpoint, torch.export.load(path).state_dict)
    assert [remark.code for remark in checkpoint.remarks] == ["CKPT709"]


# -- pickled tensors and objects ----------------------------------------------------------------------


def saved(value: object) -> bytes:
    buffer = io.BytesIO()
    torch.save(value, buffer)
    return buffer.getvalue()


def pickled(config: dict[str, Any], key: str = "l.weight") -> None:
    config["config"][key]["use_pickle"] = True


def test_pickled_weights_are_read_from_their_own_file(small: Path, tmp_path: Path) -> None:
    weight = nn.Parameter(torch.arange(24.0).view(2, 12)[:, :6].t())
    path = edited(small, tmp_path, **{WEIGHTS: pickled, "data/weights/weight_0": saved(weight)})
    checkpoint = read(path)
    assert_same(checkpoint, torch.export.load(path).state_dict)
    assert checkpoint.manifest["l.weight"].storage == "weight_0/0"
    assert "data/weights/weight_0:archive/data.pkl" in {g.member for g in checkpoint.globals}


def test_a_buffer_that_looks_at_a_parameter(small: Path, tmp_path: Path) -> None:
    """torch makes a view of the parameter of it, which asks for gradients as the parameter does."""

    def share(node: Any) -> None:
        entry = copy.deepcopy(node["config"]["l.weight"]) | {"is_param": False}
        entry["tensor_meta"] |= {"requires_grad": False, "storage_offset": {"as_int": 3}, "sizes": [{"as_int": 3}] * 2}
        node["config"]["rows"] = entry

    path = edited(small, tmp_path, **{WEIGHTS: share})
    checkpoint = read(path)
    assert_same(checkpoint, torch.export.load(path).state_dict)
    assert checkpoint.manifest["rows"].requires_grad


def test_a_real_subclass_of_tensors(tmp_path: Path) -> None:
    from torch.testing._internal.two_tensor import TwoTensor

    class Pair(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w = nn.Parameter(TwoTensor(torch.ones(3, 4), torch.zeros(3, 4)))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x @ self.w

    path = tmp_path / "pair.pt2"
    torch.export.save(torch.export.export(Pair(), (torch.ones(2, 3),), strict=False), path)
    assert "TwoTensor" in refusal(path).reason
    spec = read(path, allow_refused=True).manifest["w"]
    assert (spec.shape, spec.dtype, spec.kind, spec.storage) == ((3, 4), "float32", "parameter", None)


class Odd:
    def __reduce__(self) -> tuple[object, ...]:
        return os.system, ("touch /tmp/never",)


class Mine:
    pass


def test_what_a_pickled_weight_does_not_tell_its_config_does(small: Path, tmp_path: Path) -> None:
    path = edited(small, tmp_path, **{WEIGHTS: pickled, "data/weights/weight_0": saved(Mine())})
    error = refusal(path)
    assert (error.code, error.subject) == ("CKPT701", str(path))
    checkpoint = read(path, allow_refused=True)
    spec = checkpoint.manifest["l.weight"]
    assert (spec.shape, spec.dtype, spec.storage, spec.kind) == ((4, 3), "float32", None, "parameter")
    assert list(checkpoint.raw[""]) == ["l.bias"]


def test_objects_among_the_constants(small: Path, tmp_path: Path) -> None:
    packed = torch.ops.quantized.linear_prepack(torch.quantize_per_tensor(torch.ones(4, 3), 0.1, 0, torch.qint8), None)

    def constants(value: dict[str, Any]) -> None:
        plain = {"is_param": False, "use_pickle": True, "tensor_meta": None}
        value["config"]["packed"] = plain | {"path_name": "custom_obj_0"}
        value["config"]["opaque"] = plain | {"path_name": "opaque_obj_0"}
        value["config"]["tensor"] = plain | {"path_name": "tensor_7"}

    records = {
        "data/constants/custom_obj_0": torch._C._pickle_save(packed),
        "data/constants/opaque_obj_0": dumps({"a": 1}),
        "data/constants/tensor_7": saved(torch.ones(2)),
    }
    checkpoint = read(edited(small, tmp_path, **{CONSTANTS: constants}, **records))
    verdicts = {g.name: (g.verdict, g.member) for g in checkpoint.globals}
    assert verdicts["__torch__.torch.classes.quantized.LinearPackedParamsBase"] == (
        "inert",
        "data/constants/custom_obj_0:archive/data.pkl",
    )
    assert checkpoint.details["constants"] == "4"
    assert [remark.code for remark in checkpoint.remarks] == ["CKPT709"]


# -- what torch.export.load would run -----------------------------------------------------------------


def opaque(config: dict[str, Any], **fields: object) -> None:
    config["config"]["x"] = {"path_name": "opaque_obj_0", "is_param": False, "use_pickle": True} | fields


@pytest.mark.parametrize(
    ("changes", "member"),
    [
        ({INPUTS: saved(((Odd(),), {}))}, f"{INPUTS}:archive/data.pkl"),
        ({WEIGHTS: pickled, "data/weights/weight_0": saved(Odd())}, "data/weights/weight_0:archive/data.pkl"),
        (
            {CONSTANTS: lambda c: pickled(c, "hidden"), "data/constants/tensor_0": saved(Odd())},
            "data/constants/tensor_0:archive/data.pkl",
        ),
        ({CONSTANTS: opaque, "data/constants/opaque_obj_0": dumps(Odd())}, "data/constants/opaque_obj_0"),
        (
            # torch goes by the name of the record, whatever the config says.
            {
                CONSTANTS: lambda c: opaque(c, use_pickle=False, tensor_meta=copy.deepcopy(META)),
                "data/constants/opaque_obj_0": dumps(Odd()),
            },
            "data/constants/opaque_obj_0",
        ),
        ({"data/weights/model.pt": saved({"w": Odd()})}, "data/weights/model.pt:archive/data.pkl"),
        ({"data/constants/model.pt": saved({"w": Odd()})}, "data/constants/model.pt:archive/data.pkl"),
    ],
    ids=["inputs", "weight", "constant", "opaque", "opaque by name", "state dict", "constants"],
)
def test_nested_pickles_are_judged(small: Path, changes: dict[str, Change], member: str, tmp_path: Path) -> None:
    path = edited(small, tmp_path, **changes)
    error = refusal(path)
    assert (error.code, error.subject) == ("CKPT702", str(path))
    assert error.reason == "runs code when it is unpickled: it names posix.system"
    assert error.hint == f"see what it holds, without running anything: ckptaudit inspect {path}"
    found = {g.name: g for g in read(path, allow_refused=True).globals}["posix.system"]
    assert (found.verdict, found.member) == ("dangerous", member)
    assert found.call == "posix.system('touch /tmp/never')"


META = {
    "dtype": 1,
    "sizes": [{"as_int": 1}],
    "requires_grad": False,
    "device": {"type": "cpu", "index": None},
    "strides": [{"as_int": 1}],
    "storage_offset": {"as_int": 0},
    "layout": 7,
}


def test_nested_files_of_other_formats(small: Path, tmp_path: Path) -> None:
    legacy = io.BytesIO()
    torch.save(((torch.ones(2), Odd()), {}), legacy, _use_new_zipfile_serialization=False)
    assert refusal(edited(small, tmp_path, **{INPUTS: legacy.getvalue()})).code == "CKPT702"
    assert refusal(edited(small, tmp_path, **{INPUTS: pickle.dumps(Odd())})).code == "CKPT702"
    script = io.BytesIO()
    torch.jit.save(torch.jit.script(nn.ReLU()), script)
    remarks = read(edited(small, tmp_path, **{INPUTS: script.getvalue()})).remarks
    assert [remark.reason[:60] for remark in remarks] == [
        "holds data/sample_inputs/model.pt, which holds TorchScript code in 1 record"[:60],
        "holds an exported program (models/model.json), which runs wh"[:60],
    ]
    header = b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}'
    error = refusal(edited(small, tmp_path, **{INPUTS: len(header).to_bytes(8, "little") + header + b"x"}))
    assert (error.code, error.subject) == ("CKPT002", f"{tmp_path / 'edited.pt2'}:{INPUTS}")
    assert error.reason == "is a safetensors file, where torch.save's is needed"


def test_archives_do_not_nest_deeper(small: Path, tmp_path: Path) -> None:
    error = refusal(edited(small, tmp_path, **{INPUTS: small.read_bytes()}))
    assert (error.code, error.reason) == ("CKPT001", "is an exported program (torch.export) inside another file")


def test_broken_nested_files_are_named(small: Path, tmp_path: Path) -> None:
    error = refusal(edited(small, tmp_path, **{INPUTS: saved((1,))[:-10]}))
    assert error.subject == f"{tmp_path / 'edited.pt2'}:{INPUTS}"


def test_oddities_of_nested_files_are_remarked(small: Path, tmp_path: Path) -> None:
    inner = tmp_path / "inner.pt"
    inner.write_bytes(saved(((torch.ones(1),), {})))
    with zipfile.ZipFile(inner, "a") as target:
        target.writestr("archive/note", b"x")
    remark = read(edited(small, tmp_path, **{INPUTS: inner.read_bytes()})).remarks[0]
    assert remark.code == "CKPT707"
    assert remark.reason == f"holds {INPUTS}, which holds 1 record ('note') that nothing refers to"


def expression(text: object) -> Callable[[Any], None]:
    """Return a change that puts a text in place of every symbolic size."""

    def change(node: Any) -> None:
        if isinstance(node, dict):
            for key, value in node.items():
                if key == "expr_str":
                    node[key] = text
                else:
                    change(value)
        elif isinstance(node, list):
            for value in node:
                change(value)

    return change


def test_symbolic_sizes_are_python_to_torch(dynamic: Path, tmp_path: Path) -> None:
    """torch.export.load evaluates them: a text that is no size would run, and is refused."""
    proof = tmp_path / "ran"
    path = edited(dynamic, tmp_path, **{PROGRAM: expression(f"open({str(proof)!r}, 'w') and 5")})
    error = refusal(path)
    assert error.code == "CKPT702"
    assert error.reason.startswith('makes torch.export.load evaluate "open(')
    assert error.reason.endswith(", which is no symbolic size (models/model.json)")
    checkpoint = read(path, allow_refused=True)
    assert [remark.code for remark in checkpoint.remarks] == ["CKPT702", "CKPT709"]
    assert not proof.exists()
    with pytest.raises(Exception):  # noqa: B017, PT011
        torch.export.load(path)
    assert proof.exists()


def test_a_symbolic_size_that_is_no_text(dynamic: Path, tmp_path: Path) -> None:
    assert refusal(edited(dynamic, tmp_path, **{PROGRAM: expression(["exec"])})).code == "CKPT702"


def test_escapes_do_not_hide_an_expression(dynamic: Path, tmp_path: Path) -> None:
    with zipfile.ZipFile(dynamic) as source:
        text = source.read(f"dynamic/{PROGRAM}").replace(b"expr_str", b"exp\\u0072_str").replace(b"Symbol(", b"eval(")
    assert refusal(edited(dynamic, tmp_path, **{PROGRAM: text})).code == "CKPT702"


def in_spec(context: object) -> Callable[[Any], None]:
    """Return a change of the structure of a program's inputs."""

    def change(node: dict[str, Any]) -> None:
        signature = node["graph_module"]["module_call_graph"][0]["signature"]
        signature["in_spec"] = json.dumps([1, {"type": "x", "context": context, "children_spec": []}])

    return change


def factory(module: str, name: str) -> dict[str, object]:
    return {"default_factory_module": module, "default_factory_name": name, "dict_context": []}


@pytest.mark.parametrize(
    ("context", "code", "name"),
    [
        (factory("antigravity", "fly"), "CKPT701", "antigravity.fly"),
        (factory("os", "system"), "CKPT702", "os.system"),
        (json.dumps({"__enum__": True, "fqn": "my.shapes:Kind", "name": "A"}), "CKPT701", "my.shapes.Kind"),
        ({"default_factory_module": "\u202e", "default_factory_name": 1}, "CKPT701", "\\u202e.1"),
    ],
)
def test_modules_that_the_inputs_import_are_named(
    small: Path, context: object, code: str, name: str, tmp_path: Path
) -> None:
    path = edited(small, tmp_path, **{PROGRAM: in_spec(context)})
    assert refusal(path).code == code
    found = [g for g in read(path, allow_refused=True).globals if g.member == PROGRAM]
    assert [g.name for g in found] == [name]


def test_default_dicts_of_plain_data(small: Path, tmp_path: Path) -> None:
    path = edited(small, tmp_path, **{PROGRAM: in_spec(factory("builtins", "list"))})
    assert {g.name: g.verdict for g in read(path).globals}["builtins.list"] == "inert"
    read(edited(small, tmp_path, **{PROGRAM: in_spec("__enum__ is no JSON")}))


def test_compiled_code_is_refused(small: Path, tmp_path: Path) -> None:
    """AOTInductor: torch.export.load hands the library to the dynamic linker."""
    names = ["model.wrapper.so", "model.cpp", "model.wrapper_metadata.json"]
    path = edited(small, tmp_path, **{f"data/aotinductor/model/{name}": b"\x7fELF" for name in names})
    error = refusal(path)
    assert (error.code, error.hint) == ("CKPT702", "do not load it with torch.export.load")
    assert error.reason == (
        "holds compiled code (data/aotinductor/model/model.wrapper.so and 1 more), "
        "which torch.export.load runs as it opens the file"
    )
    checkpoint = read(path, allow_refused=True)
    assert len(checkpoint.manifest) == 2
    assert checkpoint.remarks[0].keys == tuple(f"data/aotinductor/model/{name}" for name in names[:2])


def test_weights_beside_compiled_code_are_judged(tmp_path: Path) -> None:
    def packed(weight: bytes, config: object) -> Path:
        path = tmp_path / "compiled.pt2"
        with PT2ArchiveWriter(str(path)) as writer:
            writer.write_bytes("data/weights/weight_0", weight)
            writer.write_string("data/aotinductor/model/weights_config.json", json.dumps(config))
        return path

    assert read(packed(saved(torch.ones(2)), {"w": ["weight_0", [2], [1], 0]})).remarks == ()
    assert refusal(packed(saved(Odd()), {"w": ["weight_0", [2], [1], 0]})).code == "CKPT702"
    assert refusal(packed(b"", {"w": ["weight_1"]})).reason == (
        "is a broken torch archive: its data/aotinductor/model/weights_config.json names a record that is not there"
    )
    assert refusal(packed(b"", {"w": 1})).code == "CKPT002"


def test_newer_layouts_are_not_read(small: Path, tmp_path: Path) -> None:
    for version in (b"1", None):
        error = refusal(edited(small, tmp_path, archive_version=version))
        shown = "" if version is None else "1"
        assert (error.code, error.hint) == ("CKPT703", "look for a newer ckptaudit")
        assert error.reason == f"is an exported program of the archive_version '{shown}'; only '0' is known"


# -- archives that torch.export.save does not write -----------------------------------------------------


def test_unknown_records_are_remarked(small: Path, tmp_path: Path) -> None:
    more = {"payload.pkl": b"x", "data/weights/weight_9": b"x", "extra/a.txt": b"a", "models_old/a.json": b"{}"}
    remark = read(edited(small, tmp_path, **more)).remarks[0]
    assert (remark.code, remark.keys) == ("CKPT707", ("data/weights/weight_9", "models_old/a.json", "payload.pkl"))
    assert not any(is_export_record(name) for name in remark.keys)
    assert is_export_record("extra/a.txt") and is_export_record("archive_format")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"archive_format": b"pt3"}, "its archive_format is 'pt3', not 'pt2'"),
        ({"byteorder": b"middle"}, "its byte order is neither little nor big"),
        ({"models/other.JSON": b"{}"}, "its record models/other.JSON is no program that torch.export.save writes"),
        ({"models/.json": b"{}"}, "its record models/.json is no program that torch.export.save writes"),
        ({"data.pkl": dumps(1)}, "it is an archive of torch.save and an exported program at once"),
        ({INPUTS: None}, f"it has no record {INPUTS}"),
        ({WEIGHTS: None}, f"it has no record {WEIGHTS}"),
        ({CONSTANTS: None}, f"it has no record {CONSTANTS}"),
        ({"data/weights/weight_0": None}, "it has no record data/weights/weight_0"),
        ({"data/constants/tensor_0": None}, "it has no record data/constants/tensor_0"),
        ({WEIGHTS: b"{"}, f"its {WEIGHTS} is not JSON: Expecting property name enclosed in double quotes"),
        ({WEIGHTS: b"\xff"}, f"its {WEIGHTS} is not JSON: 'utf-8' codec can't decode byte 0xff"),
        ({WEIGHTS: b"[" * 100_000}, f"its {WEIGHTS} is nested too deeply"),
        ({WEIGHTS: b"[]"}, f"its {WEIGHTS} is no JSON object"),
        ({WEIGHTS: b"{}"}, f"its {WEIGHTS} has no config"),
        ({WEIGHTS: b'{"config": {"a": 1, "a": 2}}'}, f"its {WEIGHTS} names 'a' twice"),
        ({WEIGHTS: b'{"config": {}, "config": {}}'}, f"its {WEIGHTS} names 'config' twice"),
        ({WEIGHTS: b'{"config": {"w": {"a": 1, "a": 2}}}'}, f"its {WEIGHTS} gives 'w' the field 'a' twice"),
        ({WEIGHTS: b'{"config": {"\\ud800": {}}}'}, f"its {WEIGHTS} gives '\\ud800' a name that is no valid text"),
        ({PROGRAM: b'{"__enum__": '}, f"its {PROGRAM} is not JSON: Expecting value"),
        ({PROGRAM: b'{"a": {"__enum__": "1", "__enum__": "2"}}'}, f"its {PROGRAM} names '__enum__' twice"),
        ({"data/weights/weight_0": b"x" * 47}, "its record data/weights/weight_0 of 47 bytes ends inside an element"),
    ],
)
def test_broken_archives(small: Path, changes: dict[str, Change], reason: str, tmp_path: Path) -> None:
    error = refusal(edited(small, tmp_path, **changes))
    assert error.code == "CKPT002"
    assert error.reason.startswith(f"is a broken torch archive: {reason}")
    assert "torch.export.save writes no such archive" in str(error.hint)


def put(*path: str | int, value: object) -> Callable[[Any], None]:
    """Return a change of one value in the entry of ``l.weight``."""

    def change(node: Any) -> None:
        node = node["config"]["l.weight"]
        for step in path[:-1]:
            node = node[step]
        node[path[-1]] = value

    return change


META_OF = "tensor_meta"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put("path_name", value="../weight_0"), "the record '../weight_0', which is no name of a file"),
        (put("path_name", value="/etc/passwd"), "the record '/etc/passwd', which is no name of a file"),
        (put("path_name", value="a\\b"), "the record 'a\\\\b', which is no name of a file"),
        (put("path_name", value=".."), "the record '..', which is no name of a file"),
        (put("path_name", value="a/../weight_0"), "the record 'a/../weight_0', which is no name of a file"),
        (put("path_name", value=""), "the record '', which is no name of a file"),
        (put("path_name", value=3), "the record '3', which is no name of a file"),
        (put("is_param", value=1), "an is_param or use_pickle that is neither true nor false"),
        (put("use_pickle", value="no"), "an is_param or use_pickle that is neither true nor false"),
        (put(META_OF, value=None), "raw bytes, but no strided tensor"),
        (put(META_OF, value=[]), "a tensor_meta that is no object"),
        (put(META_OF, "dtype", value=0), "the dtype '0', which is unknown"),
        (put(META_OF, "dtype", value=99), "the dtype '99', which is unknown"),
        (put(META_OF, "dtype", value=True), "the dtype 'True', which is unknown"),
        (put(META_OF, "dtype", value="float32"), "the dtype 'float32', which is unknown"),
        (put(META_OF, "dtype", value=7.0), "the dtype '7.0', which is unknown"),
        (put(META_OF, "layout", value=1), "raw bytes, but no strided tensor"),
        (put(META_OF, "layout", value=None), "a requires_grad or layout of the wrong type"),
        (put(META_OF, "requires_grad", value=0), "a requires_grad or layout of the wrong type"),
        (put(META_OF, "sizes", value=4), "sizes that are no list"),
        (put(META_OF, "sizes", 0, value=4), "sizes that are no numbers"),
        (put(META_OF, "sizes", 0, value={"as_int": 4.0}), "sizes that are no numbers"),
        (put(META_OF, "sizes", 0, value={"as_int": True}), "sizes that are no numbers"),
        (
            put(META_OF, "sizes", 0, value={"as_expr": {"expr_str": "s0"}}),
            "symbolic sizes, where a stored tensor has numbers",
        ),
        (
            put(META_OF, "storage_offset", value={"as_expr": {"expr_str": "s0"}}),
            "symbolic storage_offset, where a stored tensor has numbers",
        ),
        (put(META_OF, "strides", value={}), "strides that are no list"),
        (put(META_OF, "storage_offset", value=0), "storage_offset that are no numbers"),
        (put(META_OF, "device", value=None), "no device"),
        (put(META_OF, "device", "type", value="cpu:\x1b[2J"), "a device that is none"),
        (put(META_OF, "device", "index", value="0"), "a device that is none"),
    ],
)
def test_broken_entries(small: Path, change: Change, reason: str, tmp_path: Path) -> None:
    error = refusal(edited(small, tmp_path, **{WEIGHTS: change}))
    assert (error.code, error.reason) == (
        "CKPT002",
        f"is a broken torch archive: its {WEIGHTS} gives 'l.weight' {reason}",
    )


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (put(META_OF, "sizes", 0, value={"as_int": 5}), "needs 60 bytes of storage 'weight_0', which holds 48"),
        (
            put(META_OF, "storage_offset", value={"as_int": 1}),
            "needs 52 bytes of storage 'weight_0', which holds 48",
        ),
        (
            put(META_OF, "sizes", 0, value={"as_int": -1}),
            "has a shape with something other than a number from 0 to 2^63 in it",
        ),
        (
            put(META_OF, "strides", 0, value={"as_int": -3}),
            "has a stride with something other than a number from 0 to 2^63 in it",
        ),
        (
            put(META_OF, "storage_offset", value={"as_int": -1}),
            "has a storage offset with something other than a number from 0 to 2^63 in it",
        ),
        (
            put(META_OF, "sizes", 0, value={"as_int": 1 << 63}),
            "has a shape with something other than a number from 0 to 2^63 in it",
        ),
        (put(META_OF, "sizes", 0, value={"as_int": 1 << 62}), "has more elements than 64 bits can count"),
        (put(META_OF, "sizes", value=[]), "has 0 dimensions and 2 strides"),
    ],
)
def test_views_that_do_not_fit_their_record(small: Path, change: Change, reason: str, tmp_path: Path) -> None:
    error = refusal(edited(small, tmp_path, **{WEIGHTS: change}))
    assert (error.code, error.reason) == ("CKPT002", f"tensor 'l.weight' {reason}")


def test_the_geometry_of_constants_is_checked_too(small: Path, tmp_path: Path) -> None:
    def larger(node: Any) -> None:
        node["config"]["hidden"]["tensor_meta"]["sizes"] = [{"as_int": 99}]

    assert refusal(edited(small, tmp_path, **{CONSTANTS: larger})).reason.startswith("tensor 'hidden' needs 396 bytes")

    def unknown(node: Any) -> None:
        node["config"]["hidden"]["path_name"] = "code_0"

    assert refusal(edited(small, tmp_path, **{CONSTANTS: unknown})).reason == (
        f"is a broken torch archive: its {CONSTANTS} names the record code_0, which torch does not know"
    )


def test_one_record_has_one_dtype(small: Path, tmp_path: Path) -> None:
    """torch reads a record once, as the dtype of its first tensor."""

    def share(node: Any) -> None:
        entry = copy.deepcopy(node["config"]["l.weight"])
        entry["tensor_meta"]["dtype"] = 4
        node["config"]["again"] = entry

    assert refusal(edited(small, tmp_path, **{WEIGHTS: share})).reason == (
        f"is a broken torch archive: its {WEIGHTS} describes the record weight_0 in two ways"
    )


def test_weights_that_were_left_out(small: Path, tmp_path: Path) -> None:
    """What torch writes for a model of fake tensors: torch.export.load makes zeros of it."""
    path = edited(small, tmp_path, **{"data/weights/weight_0": b""})
    assert not torch.export.load(path).state_dict["l.weight"].any()
    assert refusal(path).reason == (
        "is a program without its weights: its record data/weights/weight_0 is empty, and torch would load zeros"
    )


@pytest.mark.parametrize("name", [WEIGHTS, PROGRAM, INPUTS, "data/weights/weight_0", "archive_format"])
def test_compressed_records_are_refused(small: Path, name: str, tmp_path: Path) -> None:
    with zipfile.ZipFile(small) as source:
        data = source.read(f"small/{name}")
    path = edited(small, tmp_path, zipfile.ZIP_DEFLATED, **{name: data})
    assert refusal(path).reason == f"is a broken torch archive: its record {name} is compressed"


def test_records_whose_names_differ_in_case(small: Path, tmp_path: Path) -> None:
    path = edited(small, tmp_path, byteorder=None, BYTEORDER=b"big")
    assert refusal(path).reason == "is a broken torch archive: its record BYTEORDER would be byteorder to torch"


def test_limits(small: Path, dynamic: Path) -> None:
    def beyond(path: Path, **limits: int) -> str:
        error = refusal(path, limits=replace(DEFAULT_LIMITS, **limits))
        assert error.code == "CKPT703"
        assert f"--limit {next(iter(limits))}=" in str(error.hint)
        return error.reason.removeprefix("is over a limit: ")

    assert beyond(small, index_bytes=100).startswith(f"its record {PROGRAM} of ")
    assert beyond(small, key_bytes=7) == f"its {WEIGHTS} has a key of 8 bytes"
    assert beyond(small, pickle_bytes=10).startswith("its record data.pkl of ")
    assert beyond(small, pickle_memory=1000).startswith(f"its {WEIGHTS} would take ")
    assert beyond(dynamic, pickle_opcodes=20) == f"its {PROGRAM} has more symbolic sizes than are read"


def test_a_torch_save_archive_that_is_a_program_too(tmp_path: Path) -> None:
    path = tmp_path / "both.pth"
    torch.save({"w": torch.ones(1)}, path)
    for name in ("models/model.json", "data/aotinductor/model/m.so"):
        both = edited(path, tmp_path, **{name: b"{}"})
        assert refusal(both).reason == (
            "is a broken torch archive: it is an archive of torch.save and an exported program at once"
        )
