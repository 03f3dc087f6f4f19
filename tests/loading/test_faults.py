"""Whatever fails in a load, and wherever: the model is bit for bit what it was."""

import os
import random
import signal
import subprocess
import sys
import tempfile
import textwrap
from collections import OrderedDict
from types import FunctionType

import pytest
import torch
from torch import nn
from torch.nn.utils.parametrizations import weight_norm

import ckptaudit
from ckptaudit import CkptauditError, LoadError
from ckptaudit.loading import undo as undo_module
from ckptaudit.loading.undo import Undo


class Watched(nn.Module):
    """Everything that a load may change: ties, buffers of both kinds, extra state, hooks with a memory."""

    def __init__(self):
        super().__init__()
        self.embedding = nn.Embedding(6, 4)
        self.head = nn.Linear(4, 6, bias=False)
        self.head.weight = self.embedding.weight
        self.norm = nn.BatchNorm1d(4)
        self.norm.running_mean.normal_()
        self.plain = weight_norm(nn.Linear(3, 3))
        self.register_buffer("mask", torch.randn(3), persistent=False)
        self.reduced = nn.Parameter(torch.randn(5, 5).half())
        self.table = torch.randn(2)
        self.memory = {"loads": 0, "names": ["a"]}
        self.heard = []
        seen = []
        self.seen = seen

        def before(state, prefix, *_):
            seen.append(len(state))
            self.table.add_(1)
            self.mask.mul_(2)

        self._register_load_state_dict_pre_hook(before)
        self.register_load_state_dict_post_hook(lambda module, _: module.heard.append(1))

    def get_extra_state(self):
        return {"loads": self.memory["loads"] + 1}

    def set_extra_state(self, state):
        self.memory["names"].append("b")
        self.memory.update(state)


def tensors(model):
    found = {}
    for path, module in model.named_modules(remove_duplicate=False):
        for name, value in [*module._parameters.items(), *module._buffers.items(), *vars(module).items()]:
            if isinstance(value, torch.Tensor):
                found[f"{path}.{name}"] = value
    return found


class Snapshot:
    """An account of a model that is not ours: every object's identity, every byte, every attribute."""

    def __init__(self, model):
        self.model = model
        self.objects = {name: id(tensor) for name, tensor in tensors(model).items()}
        self.bytes = {name: self.of(tensor) for name, tensor in tensors(model).items()}
        self.memory = repr((model.memory, model.heard, model.seen, model.training))
        self.ids = [id(model.memory), id(model.heard), id(model.seen), id(model._parameters), id(model._buffers)]
        self.attributes = {path: list(vars(module)) for path, module in model.named_modules()}
        self.random = torch.get_rng_state()

    @staticmethod
    def of(tensor):
        place = (tensor.data_ptr(), tuple(tensor.shape), tensor.stride(), tensor.dtype, tensor.requires_grad)
        return (*place, bytes(tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy()))

    def assert_same(self):
        now = Snapshot(self.model)
        assert now.objects == self.objects
        assert now.bytes == self.bytes
        assert now.memory == self.memory
        assert now.ids == self.ids
        assert now.attributes == self.attributes
        assert torch.equal(now.random, self.random)


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(1)
    source = Watched()
    state = source.state_dict()
    state["reduced"] = state["reduced"].float()  # so that a cast is among the steps
    torch.save(state, tmp_path / "c.pth")
    return tmp_path / "c.pth"


STEPS = (
    "ckptaudit/loading/",
    "ckptaudit/mapping/execute",
    "torch/nn/modules/module.py",
    "torch/nn/modules/batchnorm.py",
    "tests/loading/",
)
SHIELDED = {
    "copy",
    "_each",
    "restore",
    "close",
    "__exit__",
    "_read_back",
    "_put_back",
    "_refill",
    "_same_place",
    "place",
}


class Tripwire:
    """Raises at the line number ``at`` of those that a load goes through; counts them without."""

    def __init__(self, at, error):
        self.at, self.error, self.lines = at, error, 0

    def __enter__(self):
        sys.settrace(self.call)

    def __exit__(self, *_):
        sys.settrace(None)

    def call(self, frame, event, _):
        name = frame.f_code.co_filename
        wanted = any(step in name for step in STEPS) and frame.f_code.co_name not in SHIELDED
        return (
            self.line
            if wanted and "test_faults" not in frame.f_code.co_qualname and not self._shielded(frame)
            else None
        )

    @staticmethod
    def _shielded(frame):
        while frame is not None:
            if frame.f_code.co_name in ("restore", "close"):
                return True
            frame = frame.f_back
        return False

    def line(self, frame, event, _):
        if event == "line" and not isinstance(signal.getsignal(signal.SIGINT), FunctionType):  # no shield is up
            self.lines += 1
            if self.lines == self.at:
                sys.settrace(None)
                raise self.error
        return self.line


def lines_of_a_load(path, **options):
    model = Watched()
    wire = Tripwire(0, None)
    with wire:
        ckptaudit.load(model, path, **options)
    assert model.memory["loads"] == 1
    return wire.lines


@pytest.mark.parametrize("options", [{}, {"assign": True}, {"contract": "partial", "min_share": 0.1}], ids=str)
@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, MemoryError])
def test_a_fault_at_any_line_leaves_the_model(path, options, error):
    total = lines_of_a_load(path, **options)
    chosen = random.Random(total).sample(
        range(1, total + 1), min(total, int(os.environ.get("CKPTAUDIT_FAULTS", "150")))
    )
    failed = 0
    for at in sorted(chosen):
        model = Watched()
        snapshot = Snapshot(model)
        with Tripwire(at, error("injected")):
            try:
                ckptaudit.load(model, path, **options)
            except (error, CkptauditError):
                failed += 1
                if at == total:  # the last line of all is behind the load
                    continue
            else:  # a fault that torch or the trial took for an answer
                assert model.memory["loads"] == 1
                continue
        snapshot.assert_same()
    assert failed > 0.5 * len(chosen)


@pytest.mark.parametrize("number", range(1, 12))
def test_a_read_that_fails(path, number, monkeypatch):
    from ckptaudit.formats.base import ByteSource

    model = Watched()
    snapshot = Snapshot(model)
    read, calls = ByteSource.read_into, []

    def fail(self, offset, buffer):
        calls.append(1)
        if len(calls) == number:
            raise OSError(5, "Input/output error")
        read(self, offset, buffer)

    monkeypatch.setattr(ByteSource, "read_into", fail)
    try:
        ckptaudit.load(model, path)
    except (OSError, CkptauditError):
        snapshot.assert_same()
    else:
        assert len(calls) < number


def test_a_hook_that_raises(path):
    model = Watched()

    def post(module, _):
        raise ValueError("no")

    model.register_load_state_dict_post_hook(post)
    snapshot = Snapshot(model)
    with pytest.raises(LoadError, match="no"):
        ckptaudit.load(model, path)
    snapshot.assert_same()


def test_a_hook_that_raises_where_there_are_values_only(path):
    model = Watched()

    def post(module, _):
        if not module.reduced.is_meta:
            raise ValueError("no")

    model.register_load_state_dict_post_hook(post)
    snapshot = Snapshot(model)
    with pytest.raises(LoadError, match="does not load into Watched, which is as it was: ValueError: no") as caught:
        ckptaudit.load(model, path)
    assert isinstance(caught.value.__cause__, ValueError)
    snapshot.assert_same()


def test_a_file_that_is_written_to_during_the_load(path):
    model = Watched()

    def post(module, _):
        if not module.reduced.is_meta:
            os.utime(path, ns=(1, 1))

    model.register_load_state_dict_post_hook(post)
    snapshot = Snapshot(model)
    with pytest.raises(CkptauditError, match="was written to while it was read"):
        ckptaudit.load(model, path)
    snapshot.assert_same()


def test_hooks_that_compute_with_values(tmp_path):
    """The trial on a twin cannot tell; the load itself is judged, and undone where it breaks the contract."""

    class Reading(nn.Module):
        def __init__(self, more=False):
            super().__init__()
            self.w = nn.Parameter(torch.zeros(2))
            if more:
                self.v = nn.Parameter(torch.zeros(2))
            self._register_load_state_dict_pre_hook(self.hook)

        def hook(self, state, prefix, *_):
            state[f"{prefix}w"] = state[f"{prefix}w"] * float(state[f"{prefix}w"].sum())

    torch.save({"w": torch.tensor([1.0, 2.0])}, tmp_path / "c.pth")
    model = Reading()
    assert ckptaudit.load(model, tmp_path / "c.pth").loaded_keys == ("w",)
    assert model.w.tolist() == [3.0, 6.0]
    model = Reading(more=True)
    with pytest.raises(LoadError, match=r"does not load strictly into Reading: 1 missing \(v\)"):
        ckptaudit.load(model, tmp_path / "c.pth")
    assert model.w.tolist() == [0.0, 0.0]


def test_lazy_parameters_are_lazy_again(tmp_path):
    torch.save({"a.weight": torch.ones(2, 3), "a.bias": torch.ones(2)}, tmp_path / "c.pth")
    model = nn.ModuleDict({"a": nn.LazyLinear(2)})

    def post(module, _):
        if not module["a"].weight.is_meta:
            raise ValueError("no")

    model.register_load_state_dict_post_hook(post)
    with pytest.raises(LoadError):
        ckptaudit.load(model, tmp_path / "c.pth")
    assert nn.parameter.is_lazy(model["a"].weight)
    model._load_state_dict_post_hooks.clear()
    ckptaudit.load(model, tmp_path / "c.pth")
    assert model["a"].weight.tolist() == [[1.0] * 3] * 2


@pytest.mark.parametrize("in_memory", [0, 100, 1 << 20])
def test_old_values_beyond_the_memory_go_to_a_file(in_memory):
    torch.manual_seed(0)
    model = Watched()
    snapshot = Snapshot(model)
    undo = Undo(model, in_memory)
    with torch.no_grad():
        for tensor in tensors(model).values():
            tensor.zero_()
    model.reduced.data = torch.zeros(1)
    model.embedding.weight = nn.Parameter(torch.zeros(1))
    del model.norm._buffers["running_mean"]
    model.memory["names"].append("x")
    undo.restore()
    undo.close()
    snapshot.assert_same()


def test_no_room_for_old_values(path, monkeypatch):
    monkeypatch.setattr(undo_module, "IN_MEMORY", 0)
    monkeypatch.setattr(Undo.__init__, "__defaults__", (0, ()))

    def full(*_, **__):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tempfile, "TemporaryFile", full)
    model = Watched()
    snapshot = Snapshot(model)
    with pytest.raises(LoadError, match="cannot be kept until a load is done: No space left on device"):
        ckptaudit.load(model, path)
    snapshot.assert_same()


INTERRUPTED = """
import os, random, signal, sys, threading, time
import torch
from torch import nn
import ckptaudit

signal.signal(signal.SIGINT, signal.default_int_handler)  # which jobs in the background ignore
model = nn.Sequential(*[nn.Linear(700, 700) for _ in range(30)])
before = [p.detach().clone() for p in model.parameters()]
after = list(torch.load(sys.argv[1]).values())
ckptaudit.load(nn.Linear(2, 2), nn.Linear(2, 2).state_dict())  # an import that is broken off is broken for good
ckptaudit.load(nn.Sequential(*[nn.Linear(700, 700) for _ in range(30)]), sys.argv[1])
started = time.perf_counter()
ckptaudit.load(nn.Sequential(*[nn.Linear(700, 700) for _ in range(30)]), sys.argv[1])
takes = time.perf_counter() - started
rng, seen = random.Random(int(sys.argv[2])), []
while len(seen) < 20 or (len(set(seen)) < 2 and len(seen) < 200):
    timer = threading.Timer(rng.uniform(0, 1.5 * takes), os.kill, (os.getpid(), signal.SIGINT))
    ended = "interrupted"
    try:
        timer.start()
        ckptaudit.load(model, sys.argv[1])
        ended = "loaded"
        timer.join()
        time.sleep(1)
    except KeyboardInterrupt:
        timer.join()
    values = list(model.parameters())
    old = all(map(torch.equal, values, before))
    new = all(map(torch.equal, values, after))
    assert old or new, ended
    seen.append(ended)
    with torch.no_grad():
        for p, b in zip(values, before):
            p.copy_(b)
print(sorted(set(seen)))
"""


def test_ctrl_c_at_random_moments(tmp_path):
    torch.save(nn.Sequential(*[nn.Linear(700, 700) for _ in range(30)]).state_dict(), tmp_path / "c.pth")
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(INTERRUPTED), tmp_path / "c.pth", "3"], capture_output=True, text=True
    )
    assert result.returncode == 0, result.stderr
    assert result.stdout == "['interrupted', 'loaded']\n"


def test_a_kill_leaves_no_file(tmp_path):
    torch.save(nn.Linear(3000, 3000).state_dict(), tmp_path / "c.pth")
    folder = tmp_path / "scratch"
    folder.mkdir()
    code = """
        import os, signal, sys, torch, ckptaudit
        from torch import nn
        from ckptaudit.loading import undo
        undo.Undo.__init__.__defaults__ = (0, ())
        model = nn.Linear(3000, 3000)
        def die(module, _):
            if not module.weight.is_meta:
                os.kill(os.getpid(), signal.SIGKILL)
        model.register_load_state_dict_post_hook(die)
        ckptaudit.load(model, sys.argv[1])
    """
    result = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), tmp_path / "c.pth"], env={**os.environ, "TMPDIR": str(folder)}
    )
    assert result.returncode == -signal.SIGKILL
    assert list(folder.iterdir()) == []


def test_the_state_dict_of_the_caller_is_left_alone():
    source = Watched()
    state = OrderedDict(source.state_dict())
    keys, kept = list(state), dict(state)
    ckptaudit.load(Watched(), state)
    assert list(state) == keys
    assert all(state[key] is kept[key] for key in keys)


class TestLargeModels:
    """Without code of their own in the load: their tensors are overwritten last."""

    @pytest.fixture(autouse=True)
    def _everything_is_large(self, monkeypatch):
        monkeypatch.setattr("ckptaudit.loading.atomic.IN_MEMORY", 0)
        monkeypatch.setattr("ckptaudit.formats.page_cache.is_cached", lambda *_: False)

    @staticmethod
    def model():
        model = nn.Sequential(nn.Linear(40, 40), nn.BatchNorm1d(40), nn.Linear(40, 40), nn.Linear(4, 4).half())
        model[2].weight = model[0].weight
        return model

    @pytest.fixture
    def large(self, tmp_path):
        state = self.model().state_dict()
        state["3.bias"] = state["3.bias"].float()
        torch.save(state, tmp_path / "c.pth")
        return tmp_path / "c.pth"

    @staticmethod
    def bytes_of(model):
        return {k: bytes(v.contiguous().reshape(-1).view(torch.uint8).numpy()) for k, v in model.state_dict().items()}

    def test_they_are_loaded(self, large):
        model, other = self.model(), self.model()
        ckptaudit.load(model, large)
        other.load_state_dict(torch.load(large))
        assert self.bytes_of(model) == self.bytes_of(other)

    def test_a_read_that_fails_once(self, large, monkeypatch):
        from ckptaudit.formats.base import ByteSource

        read, left = ByteSource.read_into, [0]

        def fail(self, offset, buffer):
            left[0] -= 1
            if left[0] == 0:
                raise OSError(5, "Input/output error")
            read(self, offset, buffer)

        monkeypatch.setattr(ByteSource, "read_into", fail)
        expected = self.bytes_of(self.loaded(large))
        ends = set()
        for at in range(1, 30):
            left[0] = at
            model = self.model()
            before = self.bytes_of(model)
            try:
                ckptaudit.load(model, large)
            except (OSError, CkptauditError):
                ends.add("failed")
                assert self.bytes_of(model) == before
            else:
                ends.add("loaded")
                assert self.bytes_of(model) == expected
        assert ends == {"failed", "loaded"}

    def loaded(self, large):
        model = self.model()
        model.load_state_dict(torch.load(large))
        return model

    @pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
    def test_a_fault_at_any_line(self, large, error):
        wire, whole = Tripwire(0, None), self.model()
        with wire:
            ckptaudit.load(whole, large)
        after = self.bytes_of(whole)
        chosen = random.Random(wire.lines).sample(range(1, wire.lines + 1), min(wire.lines, 150))
        for at in sorted(chosen):
            model = self.model()
            before = self.bytes_of(model)
            with Tripwire(at, error("injected")):
                try:
                    ckptaudit.load(model, large)
                except (error, CkptauditError):  # the last line of all is behind the load
                    assert self.bytes_of(model) in (before, after), at
            torch.set_grad_enabled(True)


def test_what_is_in_memory_is_not_read_twice(tmp_path):
    from ckptaudit.formats.base import ByteSource

    path = tmp_path / "x"
    path.write_bytes(bytes(1 << 20))
    source = ByteSource(path)
    with open(path, "rb") as file:
        os.fsync(file.fileno())
        file.read()
        if not source.is_cached(0, 1 << 20):
            pytest.skip("this kernel does not say what it keeps in memory")
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    assert not source.is_cached(0, 1 << 20)
    assert not source.is_cached(0, 0)
