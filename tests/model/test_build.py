"""From a spec to a built module: the choice, the arguments, the meta device, and how each can fail."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch import nn
from workshop import NET, built, failure

from ckptaudit.model.describe import manifest_of

BUILD = "ckptaudit diff model.py:build CHECKPOINT"


def test_a_class_by_name(write):
    write(NET)
    model = built("model.py:Net")
    assert (model.facts.name, model.facts.file, model.facts.line) == ("model.py:Net", "model.py", 6)
    assert (model.facts.device, model.facts.note) == ("meta", "")
    assert model.module.fc.weight.is_meta
    assert manifest_of(model.module)["fc.weight"].shape == (10, 4)


def test_the_only_candidate_is_chosen(write):
    write(NET)
    assert built("model.py").facts.name == "model.py:Net"


def test_arguments_reach_the_constructor(write):
    write(NET)
    assert built("model.py", "num_classes=3").module.fc.weight.shape == (3, 4)


def test_a_nested_class(write):
    write(
        """\
        from torch import nn
        class Zoo:
            class Net(nn.Linear):
                def __init__(self): super().__init__(1, 2)
        """
    )
    model = built("model.py:Zoo.Net")
    assert (model.facts.name, model.facts.line) == ("model.py:Zoo.Net", 3)


@pytest.mark.parametrize(
    "header",
    [
        "def anything() -> nn.Module:",
        "def anything() -> 'nn.Linear':",
        "def build_it():",
        "def make():",
        "def create_net():",
        "def get_my_model():",
        "def model():",
        "def model() -> 'Unknown':",
    ],
)
def test_functions_that_make_models_are_candidates(write, header):
    write(f"from torch import nn\n\n{header}\n    return nn.Linear(1, 2)\n")
    model = built("model.py")
    assert model.facts.line == 3
    assert model.module.weight.is_meta


@pytest.mark.parametrize(
    "text",
    [
        "from torch import nn\nfrom torch.nn import Linear\nx = 3\n",
        "def build_table() -> dict:\n    return {}\n",
        "def model() -> None:\n    pass\n",
        "def anything():\n    pass\n",
        "from torch import nn\nclass _Hidden(nn.Module):\n    pass\ndef _build(): pass\n",
        "import abc\nfrom torch import nn\n"
        "class Base(nn.Module, abc.ABC):\n    @abc.abstractmethod\n    def f(self): pass\n",
        "",
    ],
)
def test_a_file_without_candidates(write, text):
    write(text)
    assert failure("model.py") == (
        "model.py",
        "holds no model: no torch.nn.Module class, no function that builds one, no instance",
        "define one there, or name what builds it: ckptaudit diff model.py:NAME CHECKPOINT",
    )


def test_several_candidates_and_no_choice(write):
    write(
        """\
        from torch import nn
        from torch.nn import Linear

        class Encoder(nn.Module):
            pass

        @staticmethod
        class Net(nn.Module):
            pass

        Alias = Encoder

        def build(): return Net()

        net = Linear(1, 1)
        """.replace("@staticmethod\n        ", "")
    )
    assert failure("model.py") == (
        "model.py",
        "four candidates and no choice: Encoder (line 4), Net (line 7), build() (line 12), net (line 14)",
        "ckptaudit diff model.py:Net CHECKPOINT",
    )


def test_the_hint_repeats_the_arguments(write):
    write("from torch import nn\nclass A(nn.Module): pass\nclass B(nn.Module): pass\n")
    assert failure("model.py", "n=3")[1:] == (
        "two candidates and no choice: A (line 2), B (line 3)",
        "ckptaudit diff model.py:B CHECKPOINT --arg n=3",
    )


def test_a_decorated_function_is_at_its_def(write):
    write(
        """\
        import functools
        from torch import nn

        @functools.lru_cache
        def build(): return nn.Linear(1, 1)
        """
    )
    assert built("model.py").facts.line == 5


def test_an_instance(write):
    write("from torch import nn\nprint('made')\nnet = nn.Linear(1, 2)\n")
    model = built("model.py")
    assert (model.facts.name, model.facts.line, model.facts.device, model.facts.note) == (
        "model.py:net",
        3,
        "cpu",
        "",
    )


def test_an_instance_takes_no_arguments(write):
    write("from torch import nn\nnet = nn.Linear(1, 2)\n")
    assert failure("model.py", "n=1") == (
        "model.py:net",
        "is built already, so --arg n has nothing to set",
        "ckptaudit diff model.py:net CHECKPOINT",
    )


def test_what_is_no_model(write):
    write("size = 3\n")
    assert failure("model.py:size") == (
        "model.py:size",
        "is of type int, neither a torch.nn.Module nor a function that builds one",
        "name a class, a function or an instance: ckptaudit diff model.py:NAME CHECKPOINT",
    )


def test_a_class_that_is_no_module(write):
    write("class Config:\n    pass\n")
    assert failure("model.py:Config")[1] == "Config() returned a Config, which is no torch.nn.Module"


def test_a_missing_argument(write):
    write("from torch import nn\nclass Net(nn.Module):\n    def __init__(self, num_classes, depth=3): ...\n")
    assert failure("model.py") == (
        "model.py:Net",
        "Net() needs 1 argument: num_classes",
        "ckptaudit diff model.py:Net CHECKPOINT --arg num_classes=10",
    )


def test_several_missing_arguments(write):
    write(
        """
        from __future__ import annotations
        def build(in_channels, hidden: int, dropout: float, flag: bool, name: str, *, layers: list, x): ...
        """
    )
    assert failure("model.py:build", "x=1") == (
        "model.py:build",
        "build() needs 6 arguments: in_channels, hidden, dropout, flag, name, layers",
        f"{BUILD} --arg x=1 --arg in_channels=3 --arg hidden=64 --arg dropout=0.1 "
        "--arg flag=True --arg name=base --arg 'layers=[2, 2]'",
    )


@pytest.mark.parametrize("parameter", ["config", "args: dict", "backbone: 'nn.Module'", "hparams"])
def test_an_argument_that_no_text_can_give(write, parameter):
    write(f"from torch import nn\nclass Net(nn.Module):\n    def __init__(self, {parameter}): ...\n")
    assert failure("model.py") == (
        "model.py:Net",
        f"Net() needs 1 argument: {parameter.partition(':')[0]}",
        f"write a function without arguments that returns Net(...), and name it: {BUILD}",
    )


def test_an_unknown_argument(write):
    write(NET)
    assert failure("model.py:Net", "num_clases=3") == (
        "model.py:Net",
        "Net() has no argument 'num_clases'; it takes num_classes",
        "ckptaudit diff model.py:Net CHECKPOINT --arg num_classes=3",
    )
    assert failure("model.py:Net", "zzz=3", "num_classes=4") == (
        "model.py:Net",
        "Net() has no argument 'zzz'; it takes num_classes",
        "ckptaudit diff model.py:Net CHECKPOINT --arg num_classes=4",
    )


def test_an_unknown_argument_of_a_function_that_takes_none(write):
    write("def build(): ...\n")
    assert failure("model.py", "n=3")[1] == "build() has no argument 'n'; it takes none"


def test_keyword_arguments_are_passed_on(write):
    write(NET + "def build(**kwargs): return Net(**kwargs)\n")
    assert built("model.py:build", "num_classes=2").module.fc.out_features == 2
    assert failure("model.py:build", "n=2") == (
        "model.py:build",
        "build() raised TypeError: Net.__init__() got an unexpected keyword argument 'n'",
        "for the traceback: ckptaudit diff model.py:build CHECKPOINT --arg n=2 --debug",
    )


def test_positional_only_arguments(write):
    write(NET + "def build(n, /, *, m=1): return Net(n + m)\n")
    assert built("model.py:build", "m=2", "n=3").module.fc.out_features == 5


def test_a_constructor_that_needs_values_is_run_on_the_cpu(write):
    write(
        """
        import torch
        from torch import nn

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.rates = [rate.item() for rate in torch.linspace(0, 1, 3)]
                self.fc = nn.Linear(1, len(self.rates))
        """
    )
    model = built("model.py")
    assert model.facts.device == "cpu"
    assert model.facts.note.startswith(
        "the constructor needs values: RuntimeError: Tensor.item() cannot be called on meta"
    )
    assert not model.module.fc.weight.is_meta


def test_a_constructor_that_fails_anyway(write):
    write(
        """
        from torch import nn
        class Net(nn.Module):
            def __init__(self): assert False, 'heads must divide dim'
        """
    )
    assert failure("model.py") == (
        "model.py:Net",
        "Net() raised AssertionError: heads must divide dim",
        "for the traceback: ckptaudit diff model.py:Net CHECKPOINT --debug",
    )


def test_a_constructor_that_exits(write):
    write("def build(): raise SystemExit('no data')\n")
    assert failure("model.py")[1] == "build() raised SystemExit: no data"


@pytest.mark.parametrize(
    ("result", "reason"),
    [
        ("None", "build() returned nothing"),
        ("(nn.Linear(1, 1), 3)", "build() returned a tuple of 2 with the model at index 0"),
        ("[3, nn.Linear(1, 1)]", "build() returned a list of 2 with the model at index 1"),
        ("{}", "build() returned a dict, which is no torch.nn.Module"),
        ("nn.Linear", "build() returned the class Linear and no instance of it"),
    ],
)
def test_a_function_that_returns_no_module(write, result, reason):
    write(f"from torch import nn\ndef build(): return {result}\n")
    assert failure("model.py") == (
        "model.py:build",
        reason,
        f"write a function that returns the model alone, and name it: {BUILD}",
    )


@pytest.mark.usefixtures("workplace")
def test_torchvision():
    model = built("torchvision.models:resnet18", "num_classes=7")
    assert model.module.fc.weight.shape == (7, 512)
    assert (model.facts.name, model.facts.device) == ("torchvision.models:resnet18", "meta")


def test_a_compiled_model(write):
    write("import torch\ndef build(): return torch.compile(torch.nn.Linear(1, 1))\n")
    assert list(manifest_of(built("model.py").module).tensors) == ["_orig_mod.weight", "_orig_mod.bias"]


def test_a_partial(write):
    write("import functools\nfrom torch import nn\nnet = functools.partial(nn.Linear, 3, 4)\n")
    assert built("model.py:net").module.weight.shape == (4, 3)


def test_a_constructor_that_loads_weights_makes_no_noise_about_meta(write):
    write(
        """
        import torch
        def build():
            model = torch.nn.Linear(1, 1, bias=False)
            model.load_state_dict({"weight": torch.zeros(1, 1, device="cpu")})
            return model
        """
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert built("model.py").facts.device == "meta"


def test_the_default_device_is_restored(write):
    write(NET)
    built("model.py")
    assert nn.Linear(1, 1).weight.device == torch.device("cpu")
