"""The child process: it answers as this process would, and can neither disturb nor outlive the parent."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import textwrap
import time
from contextlib import ExitStack
from pathlib import Path

import pytest
import torch
from torch import nn

import ckptaudit
from ckptaudit.errors import ModelError, UsageError
from ckptaudit.formats import DEFAULT_LIMITS
from ckptaudit.model.describe import manifest_of
from ckptaudit.model.process import ModelProcess, open_model
from ckptaudit.model.spec import parse_model_spec
from ckptaudit.model.trial import try_load
from ckptaudit.records import replace

ROOT = str(Path(ckptaudit.__file__).parent.parent)

NOISY = """
import os, random, sys
print("at import")
os.write(1, b"straight to the descriptor\\n")
assert sys.stdin.read() == ""
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes, sizes=(1,)):
        super().__init__()
        print("in the constructor")
        torch.manual_seed(0)
        random.seed(0)
        os.system("echo from a grandchild")
        self.fc = nn.Linear(4, num_classes)
        self.norms = nn.ModuleList([nn.BatchNorm1d(size) for size in sizes])
        self.register_buffer("table", torch.zeros(3), persistent=False)
        assert (num_classes, sizes) == (3, (2, 5)), (num_classes, sizes)
"""


def write(folder, text, name="model.py"):
    (folder / name).write_text(textwrap.dedent(text), encoding="utf-8")


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    folder = tmp_path_factory.mktemp("noisy")
    write(folder, NOISY)
    spec = parse_model_spec(f"{folder}/model.py", ["num_classes=3", "sizes=(2, 5)"])
    with open_model(spec) as process:
        yield process


class Same(nn.Module):
    """The like of the noisy model, in this process."""

    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(4, 3)
        self.norms = nn.ModuleList([nn.BatchNorm1d(size) for size in (2, 5)])
        self.register_buffer("table", torch.zeros(3), persistent=False)


def test_the_manifest_is_the_one_made_here(noisy):
    expected = manifest_of(Same())
    assert noisy.manifest.tensors == expected.tensors
    assert noisy.manifest.versions == expected.versions
    assert noisy.manifest.non_persistent == expected.non_persistent
    assert noisy.manifest.source == noisy.facts.name


def test_facts(noisy):
    assert noisy.facts.name.endswith("model.py:Net")
    assert (noisy.facts.line, noisy.facts.device, noisy.facts.note) == (10, "meta", "")
    assert noisy.facts.file == noisy.facts.name.removesuffix(":Net")


def test_loads_are_tried_in_the_child_as_often_as_asked(noisy):
    full = Same().state_dict()
    plain = {key: value for key, value in full.items() if not key.endswith("tracked")}
    for state in (
        full,
        plain,
        {"other": torch.zeros(1)},
        {"fc.weight": torch.zeros(9, 4)},
        {"fc.bias": "text"},
    ):
        assert noisy.try_load(manifest_of(state)) == try_load(Same(), manifest_of(state))


def test_a_large_request_does_not_block(noisy):
    many = {f"layer{index}.weight": torch.zeros(1) for index in range(20_000)}
    assert len(noisy.try_load(manifest_of(many)).unexpected_keys) == 20_000


def test_a_witness_loads_with_values_what_was_built_without(noisy, tmp_path):
    torch.save({"net": {f"module.{key}": value for key, value in Same().state_dict().items()}}, tmp_path / "net.pth")
    testimony = noisy.really_load(f"{tmp_path}/net.pth#net", DEFAULT_LIMITS, [["module.* -> *"]])
    assert (testimony.reader, testimony.misread) == ("torch.load", ())
    as_is, mapped = testimony.loads
    assert (as_is.outcome.loaded, mapped.outcome.loaded, mapped.strict_raised) == (0, len(Same().state_dict()), "")
    assert (mapped.altered, mapped.touched) == ((), ())
    small = replace(DEFAULT_LIMITS, tensors=1)
    assert "more than 1 tensors" in noisy.really_load(str(tmp_path / "net.pth"), small, [])


def test_a_state_dict_of_this_process_is_out_of_its_reach(noisy):
    with pytest.raises(UsageError, match="is built in another process than the state dict"):
        noisy.really_load({}, DEFAULT_LIMITS, [])


def test_a_model_that_can_be_built_without_values_only(tmp_path):
    text = """
        import torch
        def build():
            layer = torch.nn.Linear(2, 2)
            if not layer.weight.is_meta:
                raise MemoryError("far too large")
            return layer
        """
    write(tmp_path, text)
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "net.pth")
    with open_model(parse_model_spec(f"{tmp_path}/model.py:build")) as process:
        said = process.really_load(str(tmp_path / "net.pth"), DEFAULT_LIMITS, [])
    assert said == "the model cannot be built on the CPU: MemoryError: far too large"


def test_a_model_that_is_there_already_is_copied(tmp_path):
    write(tmp_path, "import torch\nnet = torch.nn.Linear(2, 2)")
    torch.save({"weight": torch.ones(2, 2)}, tmp_path / "net.pth")
    with open_model(parse_model_spec(f"{tmp_path}/model.py:net")) as process:
        for _ in range(2):
            (load,) = process.really_load(str(tmp_path / "net.pth"), DEFAULT_LIMITS, []).loads
            assert (load.outcome.missing_keys, load.altered, load.touched) == (("bias",), (), ())


SCRIPT = """
import sys
from ckptaudit.errors import CkptauditError
from ckptaudit.model.process import open_model
from ckptaudit.model.spec import parse_model_spec
assert "torch" not in sys.modules
spec = parse_model_spec(sys.argv[1], sys.argv[2:])
try:
    with open_model(spec) as process:
        print(*process.manifest)
        print(process.facts)
except CkptauditError as error:
    print(f"{error.subject}: {error.reason}")
    print(error.hint)
assert "torch" not in sys.modules
"""


def run(folder, *arguments, **environment):
    """Run a parent that is no test: torch-free, ckptaudit not installed, ``folder`` as its current one."""
    script = folder / "bin" / "parent.py"
    script.parent.mkdir(exist_ok=True)
    script.write_text(f"import sys; sys.path.insert(0, {ROOT!r})\n{SCRIPT}", encoding="utf-8")
    inherited = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
    return subprocess.run(
        [sys.executable, str(script), *arguments],
        cwd=folder,
        env=inherited | environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )


def test_what_the_user_prints_goes_to_stderr_from_a_folder_of_traps(tmp_path):
    write(tmp_path, NOISY)
    for name in ("json", "torch", "signal", "ast", "traceback", "ckptaudit"):
        write(tmp_path, f"raise RuntimeError('the wrong {name}')\n", f"{name}.py")
    done = run(tmp_path, "model.py", "num_classes=3", "sizes=(2, 5)")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[0].startswith("fc.weight fc.bias norms.0.weight")
    assert done.stdout.splitlines()[1:] == [
        "ModelFacts(name='model.py:Net', file='model.py', line=10, device='meta', note='')"
    ]
    # The grandchild writes by itself; nothing orders its line among the others.
    lines = ["at import", "straight to the descriptor", "in the constructor", "from a grandchild"]
    assert sorted(done.stderr.splitlines()) == sorted(lines)


def test_a_machine_without_torch(tmp_path):
    write(tmp_path, "raise ImportError('libtorch.so: no such file')\n", "torch.py")
    write(tmp_path, "")
    done = run(tmp_path, "model.py", PYTHONPATH=str(tmp_path))
    assert done.stdout.splitlines() == [
        "model.py: needs torch: ImportError: libtorch.so: no such file",
        "pip install 'ckptaudit[torch]'",
    ]


def test_children_that_die(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    endings = {
        "import os; os._exit(3)": "ended with exit status 3",
        "import os; os._exit(0)": "ended with exit status 0",
        "import os, signal; os.kill(os.getpid(), signal.SIGKILL)": "was killed by SIGKILL",
        "import os, signal; os.kill(os.getpid(), signal.SIGSEGV)": "was killed by SIGSEGV",
    }
    with ExitStack() as stack:
        started = []
        for index, code in enumerate(endings):
            write(tmp_path, code, f"model{index}.py")
            started.append(stack.enter_context(open_model(parse_model_spec(f"model{index}.py:Net"))))
        for index, (process, ending) in enumerate(zip(started, endings.values(), strict=True)):
            for _ in range(2):  # an error is the answer to every question
                with pytest.raises(ModelError) as caught:
                    _ = process.manifest
                assert caught.value.subject == f"model{index}.py:Net"
                assert caught.value.reason == f"the process that builds the model {ending}"
                assert caught.value.hint == (
                    f"run its code on its own to see why: python -X faulthandler model{index}.py"
                )


def test_errors_come_back_as_they_are(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write(tmp_path, "from torch import nn\nclass Net(nn.Module):\n    def __init__(self, num_classes): ...\n")
    write(
        tmp_path,
        """
        from torch import nn
        class Net(nn.Linear):
            def __init__(self): super().__init__(1, 1)
            def state_dict(self, *args, **kwargs): raise ValueError("not today")
        """,
        "stubborn.py",
    )
    write(
        tmp_path,
        """
        import os
        from torch import nn
        def build():
            model = nn.Linear(1, 1)
            model.register_load_state_dict_pre_hook(lambda *_: os._exit(7))
            return model
        """,
        "fragile.py",
    )
    usage = "ckptaudit diff {model} runs/best.pth"
    with (
        open_model(parse_model_spec("model.py", usage=usage)) as needy,
        open_model(parse_model_spec("stubborn.py")) as stubborn,
        open_model(parse_model_spec("fragile.py")) as fragile,
        open_model(parse_model_spec("no_such_package_of_mine:Net")) as absent,
    ):
        with pytest.raises(ModelError) as caught:
            _ = needy.facts
        assert (caught.value.subject, caught.value.reason, caught.value.hint) == (
            "model.py:Net",
            "Net() needs 1 argument: num_classes",
            "ckptaudit diff model.py:Net runs/best.pth --arg num_classes=10",
        )
        with pytest.raises(ModelError) as caught:
            _ = stubborn.manifest
        assert (caught.value.subject, caught.value.reason, caught.value.hint) == (
            "stubborn.py:Net",
            "its state_dict() raised ValueError: not today",
            "for the traceback: ckptaudit diff stubborn.py CHECKPOINT --debug",
        )
        assert 'raise ValueError("not today")' in str(caught.value.__cause__)
        with pytest.raises(ModelError) as caught:
            fragile.try_load(fragile.manifest)
        assert caught.value.reason == "the process that builds the model ended with exit status 7"
        with pytest.raises(ModelError) as caught:
            _ = absent.manifest
        assert caught.value.reason == "there is no module 'no_such_package_of_mine'"


def test_opening_returns_at_once_and_closing_leaves_no_zombie(tmp_path):
    write(tmp_path, "import time; time.sleep(600)")
    began = time.monotonic()
    process = open_model(parse_model_spec(f"{tmp_path}/model.py"))
    opened = time.monotonic() - began
    pid = process._process._child.pid
    process.close()
    process.close()
    assert opened < 1
    assert time.monotonic() - began < 5
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_ctrl_c_in_the_parent_ends_the_child(tmp_path):
    light = tmp_path / "light"
    light.mkdir()
    # The import of torch is where most of the waiting is; this one says when it began, and takes for ever.
    waiting = "import os, time\nopen('pid', 'w').write(f'{os.getpid()}.')\ntime.sleep(600)\n"
    write(light, waiting, "torch.py")
    write(tmp_path, f"import sys; sys.path.insert(0, {ROOT!r})\n{SCRIPT}", "parent.py")
    write(tmp_path, "")
    environment = os.environ | {"PYTHONPATH": str(light)}
    parent = subprocess.Popen(
        [sys.executable, str(tmp_path / "parent.py"), "model.py"],
        cwd=tmp_path,
        env=environment,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a background job ignores it
    )
    pid_file = tmp_path / "pid"
    for _ in range(600):
        if pid_file.exists() and pid_file.read_text().endswith("."):
            break
        time.sleep(0.05)
    child = int(pid_file.read_text().rstrip("."))
    time.sleep(0.2)
    parent.send_signal(signal.SIGINT)
    _, stderr = parent.communicate(timeout=30)
    assert stderr.rstrip().endswith("KeyboardInterrupt")
    with pytest.raises(ProcessLookupError):
        os.kill(child, 0)


def test_a_child_whose_parent_closes_early_just_ends(tmp_path):
    light = tmp_path / "light"
    light.mkdir()
    write(light, "raise ImportError('none')\n", "torch.py")
    child = Path(ModelProcess.__module__.replace(".", "/")).with_name("child.py")
    process = subprocess.Popen(
        [sys.executable, str(Path(ROOT) / child), "ckptaudit.model.serving"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env=os.environ | {"PYTHONPATH": str(light)},
    )
    process.stdout.close()
    process.stdin.write(b'["model.py", "model.py", null, null, {}, "ckptaudit diff {model} CHECKPOINT"]\n')
    process.stdin.close()
    assert process.wait(timeout=30) == 0
    assert process.stderr.read() == b""
    process.stderr.close()


def test_usage_errors_are_raised_before_a_process_is_started():
    with pytest.raises(UsageError):
        open_model(parse_model_spec("weights.pth"))
