"""From a spec to a built module: the choice, the arguments, the meta device, and every way it can fail."""

from __future__ import annotations

import sys
import textwrap
import warnings

import pytest
import torch
from torch import nn

from ckptaudit.errors import ModelError
from ckptaudit.model.build import build
from ckptaudit.model.describe import manifest_of
from ckptaudit.model.spec import parse_model_spec

NET = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self, num_classes=10):
        super().__init__()
        self.fc = nn.Linear(4, num_classes)
"""

BUILD = "ckptaudit diff model.py:build CHECKPOINT"


@pytest.fixture(autouse=True)
def workplace(tmp_path, monkeypatch):
    """A folder of its own, and the interpreter as it was afterwards."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", sys.path.copy())
    monkeypatch.setattr(sys, "argv", sys.argv)
    known = set(sys.modules)
    yield tmp_path
    for name in set(sys.modules) - known:
        if str(tmp_path) in str(getattr(sys.modules[name], "__file__", "")):
            del sys.modules[name]


@pytest.fixture
def write(workplace):
    def write(text, name="model.py"):
        path = workplace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    return write


def built(text, *arguments):
    return build(parse_model_spec(text, arguments))


def failure(text, *arguments):
    with pytest.raises(ModelError) as caught:
        built(text, *arguments)
    return caught.value.subject, caught.value.reason, caught.value.hint


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


def test_a_misspelt_attribute(write):
    write(NET)
    assert failure("model.py:Nett") == (
        "model.py:Nett",
        "model.py has no attribute 'Nett'; the closest is 'Net'",
        "ckptaudit diff model.py:Net CHECKPOINT",
    )


def test_an_attribute_like_no_other(write):
    write(NET)
    assert failure("model.py:completely_other") == (
        "model.py:completely_other",
        "model.py has no attribute 'completely_other'",
        "ckptaudit diff model.py CHECKPOINT",
    )


def test_a_missing_file(write):
    write(NET, "models.py")
    assert failure("model.py:Net") == (
        "model.py:Net",
        "there is no file model.py; the closest is models.py",
        "ckptaudit diff models.py:Net CHECKPOINT",
    )
    assert failure("a/b.py") == (
        "a/b.py",
        "there is no file a/b.py",
        "give the path of the file that defines the model, from the current folder",
    )


def test_a_syntax_error(write):
    write("x = 1\nclass Net(:\n")
    subject, reason, hint = failure("model.py")
    assert (subject, hint) == ("model.py", "python -m py_compile model.py")
    assert reason == "line 2 of model.py is not valid Python: invalid syntax"


def test_a_syntax_error_in_an_imported_file(write):
    write("import broken_part\n")
    path = write("def f(:\n", "broken_part.py")
    subject, reason, hint = failure("model.py")
    assert (subject, hint) == ("model.py", f"python -m py_compile {path}")
    assert reason.startswith(f"line 1 of {path} is not valid Python: ")


def test_a_module_that_is_not_there(write):
    write("import no_such_package.part\n")
    assert failure("model.py") == (
        "model.py",
        "imports 'no_such_package', which was not found",
        "pip install no_such_package, or run from the folder that holds it",
    )
    assert failure("no_such_module.inner:Net") == (
        "no_such_module.inner:Net",
        "there is no module 'no_such_module'",
        "pip install no_such_module, or run from the folder that holds it",
    )


def test_a_name_that_cannot_be_imported(write):
    write("from textwrap import nothing_like_it\n")
    subject, reason, hint = failure("model.py")
    assert (subject, hint) == ("model.py", "for the traceback: ckptaudit diff model.py CHECKPOINT --debug")
    assert reason.startswith(
        "cannot be imported: ImportError: cannot import name 'nothing_like_it' from 'textwrap'"
    )


def test_a_module_that_imports_lazily(write):
    write("def __getattr__(name):\n    import no_such_package\n")
    assert failure("model.py:Net")[1] == "imports 'no_such_package', which was not found"


def test_an_exception_at_import(write):
    write("x = 1\nraise ValueError('no weights\\nhere')\n")
    assert failure("model.py:Net") == (
        "model.py:Net",
        "cannot be imported: ValueError: no weights",
        "for the traceback: ckptaudit diff model.py:Net CHECKPOINT --debug",
    )


def test_sys_exit_at_import(write):
    write(
        "from argparse import ArgumentParser\nparser = ArgumentParser()\nparser.add_argument('data')\nparser.parse_args()"
    )
    assert failure("model.py") == (
        "model.py",
        "ends the program when it is imported (SystemExit: 2)",
        "put what it runs as a script under: if __name__ == '__main__':",
    )


def test_a_script_is_not_run_and_sees_no_arguments_of_ours(write):
    write(
        NET
        + "import sys\nassert sys.argv == ['model.py']\nif __name__ == '__main__':\n    raise SystemExit\n"
    )
    assert built("model.py:Net").facts.device == "meta"


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
        def build(in_channels, hidden: int, dropout: float, flag: bool, name: str, *, layers: list[int], x, n=2):
            ...
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


def test_neighbours_can_be_imported(write):
    write("from neighbour_of_the_model import Net\n", "sub/model.py")
    write(NET, "sub/neighbour_of_the_model.py")
    model = built("sub/model.py:Net")
    assert (model.facts.name, model.facts.line) == ("sub/model.py:Net", 6)
    assert model.facts.file == str(sys.modules["neighbour_of_the_model"].__file__)


def test_the_projects_folder_can_be_imported_from_too(write):
    write("from project_part.net import Net\n", "sub/model.py")
    write(NET, "project_part/net.py")
    assert built("sub/model.py:Net").facts.device == "meta"


def test_a_file_inside_a_package_may_import_relatively(write):
    write("", "packaged_zoo/__init__.py")
    write("from ..base import Net\n", "packaged_zoo/nets/big.py")
    write("", "packaged_zoo/nets/__init__.py")
    write(NET, "packaged_zoo/base.py")
    assert built("packaged_zoo/nets/big.py:Net").facts.name == "packaged_zoo/nets/big.py:Net"


def test_a_file_named_like_a_known_module(write):
    write(NET, "json.py")
    import json

    assert built("json.py").module.fc.weight.is_meta
    assert sys.modules["json"] is json


def test_a_module_of_the_current_folder(write):
    write(NET, "zoo_of_here/nets.py")
    model = built("zoo_of_here.nets:Net")
    assert (model.facts.name, model.facts.line) == ("zoo_of_here.nets:Net", 6)
    assert model.facts.file == str(sys.modules["zoo_of_here.nets"].__file__)


def test_torchvision():
    model = built("torchvision.models:resnet18", "num_classes=7")
    assert model.module.fc.weight.shape == (7, 512)
    assert (model.facts.name, model.facts.device) == ("torchvision.models:resnet18", "meta")


def test_dataclasses_and_string_annotations_work_in_the_file(write):
    write(
        "from __future__ import annotations\nimport dataclasses\n"
        "@dataclasses.dataclass\nclass C:\n    n: int = 1\n" + NET
    )
    assert built("model.py").facts.name == "model.py:Net"


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
