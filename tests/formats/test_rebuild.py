from __future__ import annotations

import pytest

from ckptaudit.errors import FormatError
from ckptaudit.formats.base import DEFAULT_LIMITS, Limits
from ckptaudit.formats.pickles.nodes import Call, GlobalRef, PDict, PersistentId
from ckptaudit.formats.pickles.rebuild import Rebuilder, Storage, storage_of_id
from ckptaudit.manifest import TensorSpec

FLOAT = GlobalRef("torch.FloatStorage")
PID = PersistentId(("storage", FLOAT, "0", "cpu", 6))
HOOKS = Call(GlobalRef("collections.OrderedDict"), ())
V2 = GlobalRef("torch._utils._rebuild_tensor_v2")


def resolve(pid: PersistentId) -> Storage:
    return storage_of_id(pid, "x.pt")


def call(name: str, *args: object) -> Call:
    return Call(GlobalRef(name), args)


def v2(offset: object = 0, size: object = (2, 3), stride: object = (3, 1), *rest: object) -> Call:
    return Call(V2, (PID, offset, size, stride, *(rest or (False, HOOKS))))


def pdict(**pairs: object) -> PDict:
    return PDict(pairs.items())


def rebuild(node: object, answer: object = None) -> TensorSpec | None:
    rebuilder = Rebuilder("x.pt", resolve if answer is None else lambda _: answer, DEFAULT_LIMITS)  # type: ignore[arg-type,return-value]
    return rebuilder.tensor(node, "w")


def test_a_tensor() -> None:
    assert rebuild(v2(1, (1, 2), (3, 1))) == TensorSpec(
        shape=(1, 2),
        dtype="float32",
        stride=(3, 1),
        storage_offset=1,
        storage="0",
        storage_nbytes=24,
        requires_grad=False,
        location="cpu",
    )


def test_what_is_no_tensor() -> None:
    for node in (
        None,
        3,
        "text",
        PID,
        HOOKS,
        call("torch.Size", (1, 2)),
        call("my.Class"),
        GlobalRef("torch.Size"),
    ):
        assert rebuild(node) is None


def test_sizes_may_be_a_torch_size_or_a_list() -> None:
    spec = rebuild(v2(0, call("torch.Size", (2, 3)), [3, 1]))
    assert spec is not None
    assert (spec.shape, spec.stride) == ((2, 3), (3, 1))


def test_tensors_of_torch_before_0_4() -> None:
    node = call("torch.FloatTensor")
    node.state = (PID, 0, (6,), (1,))
    spec = rebuild(node)
    assert spec is not None
    assert (spec.shape, spec.dtype) == ((6,), "float32")


def test_storage_views_of_torch_before_1_6() -> None:
    window = Storage("7", "float32", 40, "cpu", start=8, length=16)
    spec = rebuild(v2(1, (3,), (1,)), window)
    assert spec is not None
    assert (spec.storage, spec.storage_offset, spec.storage_nbytes) == ("7", 3, 40)
    with pytest.raises(FormatError, match="needs 20 bytes of storage '7', which holds 16"):
        rebuild(v2(1, (4,), (1,)), window)
    with pytest.raises(FormatError, match="begins inside an element of storage '7'"):
        rebuild(v2(0, (1,), (1,)), Storage("7", "float32", 40, "cpu", start=2, length=16))


def test_a_persistent_id_may_stand_for_a_whole_tensor() -> None:
    spec = TensorSpec((2,), "float16")
    assert rebuild(PID, spec) is spec
    assert rebuild(call("torch._utils._rebuild_parameter", PID, True, HOOKS), spec) == TensorSpec(
        (2,), "float16", kind="parameter", requires_grad=True
    )


def test_wrapper_subclasses_have_sizes_and_no_memory() -> None:
    layout = call("torch.serialization._get_layout", "torch.strided")
    arguments = (GlobalRef("a.DTensor"), GlobalRef("torch.float16"), (4, 2), (2, 1), 0, layout, "cpu", False)
    inner = (GlobalRef("torch._utils._rebuild_wrapper_subclass"), GlobalRef("a.DTensor"), arguments, None)
    assert rebuild(call("torch._tensor._rebuild_from_type_v2", *inner)) == TensorSpec(
        (4, 2), "float16", stride=(2, 1), requires_grad=False
    )


def test_device_tensors_from_arrays_and_of_other_dtypes() -> None:
    array = call("numpy.core.multiarray._reconstruct")
    array.state = (1, (2, 2), None, False, b"")
    node = call("torch._utils._rebuild_device_tensor_from_numpy", array, GlobalRef("torch.float32"), "xla:0", False)
    assert rebuild(node) == TensorSpec((2, 2), "float32", requires_grad=False, location="xla:0")
    device = call("torch.device", "mtia", 1)
    node = call("torch._utils._rebuild_device_tensor_from_cpu_tensor", v2(), GlobalRef("torch.float16"), device, False)
    assert rebuild(node) == TensorSpec((2, 3), "float16", stride=(3, 1), requires_grad=False, location="mtia:1")


def nested_parameters(count: int) -> Call:
    node = v2()
    for _ in range(count):
        node = call("torch._utils._rebuild_parameter", node, True, HOOKS)
    return node


def with_state(state: object) -> Call:
    return call("torch._utils._rebuild_parameter_with_state", v2(), True, HOOKS, state)


def built(node: Call) -> Call:
    node.state = pdict(a=1)
    return node


QSCHEME = (GlobalRef("torch.per_tensor_affine"), 0.1, 0)
SPARSE = call("torch.serialization._get_layout", "torch.sparse_coo")
FAULTS = {
    "too few arguments": (Call(V2, (PID, 0)), "is rebuilt by torch._utils._rebuild_tensor_v2 with 2 arguments"),
    "state on a tensor": (built(v2()), "is rebuilt by torch._utils._rebuild_tensor_v2 with 6 arguments"),
    "negative offset": (v2(-1), "has a storage offset with something other than a number from 0 to 2^63 in it"),
    "bool size": (v2(0, (True, 3)), "has a shape with something other than a number"),
    "float size": (v2(0, (2.0, 3)), "has a shape with something other than a number"),
    "huge stride": (v2(0, (2, 3), (1 << 63, 1)), "has a stride with something other than a number"),
    "size is text": (v2(0, "23"), "has a shape that is no short tuple of numbers"),
    "other rank": (v2(0, (2, 3), (1,)), "has 2 dimensions and 1 strides"),
    "too long": (v2(0, (7,), (1,)), "needs 28 bytes of storage '0', which holds 24"),
    "offset behind the end": (v2(6, (1,), (1,)), "needs 28 bytes of storage '0', which holds 24"),
    "stride behind the end": (v2(0, (2,), (6,)), "needs 28 bytes of storage '0', which holds 24"),
    "zero times huge": (v2(0, (1 << 62, 1 << 62), (0, 0)), "has more elements than 64 bits can count"),
    "requires_grad": (v2(0, (6,), (1,), 1, HOOKS), "has a requires_grad that is no bool"),
    "hooks": (v2(0, (6,), (1,), False, call("a.hook")), "carries backward hooks"),
    "filled hooks": (v2(0, (6,), (1,), False, pdict(a=1)), "carries backward hooks"),
    "metadata": (v2(0, (6,), (1,), False, HOOKS, pdict(conj=1)), "has metadata other than its conj and neg bits"),
    "metadata name": (v2(0, (6,), (1,), False, HOOKS, pdict(x=True)), "has metadata other than its conj and"),
    "metadata type": (v2(0, (6,), (1,), False, HOOKS, 3), "has metadata other than its conj and neg bits"),
    "no storage": (Call(V2, (3, 0, (1,), (1,), False, HOOKS)), "is rebuilt from something that is no storage"),
    "dtype": (
        call("torch._utils._rebuild_tensor_v3", PID, 0, (1,), (1,), False, HOOKS, GlobalRef("torch.Size")),
        "has torch.Size for a dtype",
    ),
    "quantizer": (
        call("torch._utils._rebuild_qtensor", PID, 0, (1,), (1,), (), False, HOOKS),
        "is quantized by no known scheme",
    ),
    "quantized floats": (
        call("torch._utils._rebuild_qtensor", PID, 0, (1,), (1,), QSCHEME, False, HOOKS),
        "is quantized but holds float32",
    ),
    "parameter of nothing": (call("torch._utils._rebuild_parameter", 3, True, HOOKS), "wraps int, which is no tensor"),
    "parameters in each other": (nested_parameters(9), "is wrapped in itself too often"),
    "class attribute": (with_state(pdict(__class__=1)), "sets its attribute '__class__'"),
    "shadowing attribute": (with_state((pdict(shape=1), None)), "sets its attribute 'shape'"),
    "any function": (
        call("torch._tensor._rebuild_from_type_v2", GlobalRef("builtins.set"), V2, (), None),
        "is rebuilt by builtins.set, which makes no tensor",
    ),
    "no function": (call("torch._tensor._rebuild_from_type_v2", 1, V2, (), None), "that is no function, class and"),
    "sparse layout": (call("torch._utils._rebuild_sparse_tensor", 3, ()), "has an unknown sparse layout"),
    "sparse parts": (call("torch._utils._rebuild_sparse_tensor", SPARSE, ()), "is sparse and has no indices"),
    "class with another dtype": (call("torch.LongTensor"), "is made by torch.LongTensor itself and holds no storage"),
    "array": (
        call("torch._utils._rebuild_device_tensor_from_numpy", 3, GlobalRef("torch.int8"), "cpu", False),
        "is rebuilt from something that is no array",
    ),
    "cuda at once": (
        call("torch._utils._rebuild_device_tensor_from_cpu_tensor", v2(), GlobalRef("torch.float32"), "cuda:0", False),
        "moves itself to cuda:0 as it is unpickled, whatever map_location says",
    ),
    "no device": (
        call("torch._utils._rebuild_device_tensor_from_cpu_tensor", v2(), GlobalRef("torch.float32"), 0, False),
        "has int for a device",
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_faults_name_the_tensor(case: str) -> None:
    node, reason = FAULTS[case]
    with pytest.raises(FormatError) as caught:
        rebuild(node)
    assert caught.value.code == "CKPT002"
    assert caught.value.reason.startswith("tensor 'w' ")
    assert reason in caught.value.reason
    assert caught.value.hint


def test_limits() -> None:
    with pytest.raises(FormatError) as caught:
        rebuild(v2(0, (1,) * 65, (1,) * 65))
    assert (caught.value.code, caught.value.reason) == ("CKPT703", "tensor 'w' has a shape of 65 dimensions")
    assert caught.value.hint == "raise it if you trust the file: --limit dimensions=640"
    for limits, reason in (
        (Limits(tensors=9), "holds more than 9 tensors"),
        (Limits(sizes=19), "holds more than 19 dimensions of tensors together"),
    ):
        rebuilder = Rebuilder("x.pt", resolve, limits)
        nodes = [v2() for _ in range(10)]
        with pytest.raises(FormatError) as caught:
            _ = [rebuilder.tensor(node, "w") for node in nodes]
        assert (caught.value.code, caught.value.reason) == ("CKPT703", reason)


def test_tensors_in_tensors_count() -> None:
    rebuilder = Rebuilder("x.pt", resolve, Limits(tensors=3))
    inner = v2()
    nodes = [call("torch._utils._rebuild_parameter", inner, True, HOOKS) for _ in range(5)]
    with pytest.raises(FormatError, match="holds more than 3 tensors"):
        _ = [rebuilder.tensor(node, "w") for node in nodes]


def test_a_class_on_a_storage_of_another_dtype_is_refused() -> None:
    node = call("torch.LongTensor")
    node.state = (PID, 0, (6,), (1,))
    with pytest.raises(FormatError, match=r"is a torch\.LongTensor on a storage of float32"):
        rebuild(node)


def test_an_unknown_function_behind_a_subclass_is_no_tensor() -> None:
    node = call("torch._tensor._rebuild_from_type_v2", GlobalRef("a.rebuild"), GlobalRef("a.Tensor"), (), None)
    assert rebuild(node) is None


@pytest.mark.parametrize(
    ("pid", "reason"),
    [
        ("text", "it is no tuple of 'storage' and 4 more fields"),
        (("module", FLOAT, "0", "cpu", 6), "it is no tuple of 'storage' and 4 more fields"),
        (("storage", FLOAT, "0", "cpu"), "it is no tuple of 'storage' and 4 more fields"),
        (("storage", FLOAT, "0", "cpu", 6, None), "it is no tuple of 'storage' and 4 more fields"),
        (("storage", V2, "0", "cpu", 6), "its class is torch._utils._rebuild_tensor_v2"),
        (
            ("storage", GlobalRef("torch.storage.TypedStorage"), "0", "cpu", 6),
            "its class is torch.storage.Typed",
        ),
        (("storage", FLOAT, "../0", "cpu", 6), "its key is no number"),
        (("storage", FLOAT, "1" * 21, "cpu", 6), "its key is no number"),
        (("storage", FLOAT, "٣", "cpu", 6), "its key is no number"),
        (("storage", FLOAT, "0", None, 6), "its location is no text, or its size no number"),
        (("storage", FLOAT, "0", "cpu", True), "its location is no text, or its size no number"),
        (("storage", FLOAT, "0", "cpu", -1), "its location is no text, or its size no number"),
        (("storage", FLOAT, "0", "cpu", 1 << 61), "its size does not fit 64 bits"),
    ],
)
def test_odd_persistent_ids(pid: object, reason: str) -> None:
    with pytest.raises(FormatError) as caught:
        storage_of_id(PersistentId(pid), "x.pt")
    assert caught.value.code == "CKPT002"
    assert caught.value.reason.startswith(f"has a persistent id that is no storage: {reason}")


def test_untyped_storages_count_bytes_and_older_ids_have_six_fields() -> None:
    untyped = ("storage", GlobalRef("torch.storage.UntypedStorage"), "3", "cuda:1", 10)
    assert storage_of_id(PersistentId(untyped), "x.pt") == Storage("3", None, 10, "cuda:1")
    six = PersistentId(("storage", FLOAT, "94", "cpu", 6, None))
    assert storage_of_id(six, "x.pt", fields=6) == Storage("94", "float32", 24, "cpu")
