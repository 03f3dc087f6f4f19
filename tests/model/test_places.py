"""The line of the user's code behind a key. Lines are marked in the sources: ``#: key`` is where ``key`` has to lead."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from torch import nn

from ckptaudit.model.build import build
from ckptaudit.model.live import LiveModel
from ckptaudit.model.process import open_model
from ckptaudit.model.spec import parse_model_spec
from ckptaudit.place import Place

HEAD = (
    "import torch\nfrom collections import OrderedDict\nfrom torch import nn\nfrom torchvision.models import resnet18\n"
)

SOURCES = {
    "attributes": """
class Net(nn.Module):  #: gone.weight
    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3)  #: conv.weight conv.bias conv
        self.a, self.b = nn.Linear(1, 1), nn.Linear(1, 1)  #: a.weight b.bias
        self.scale: nn.Parameter = nn.Parameter(torch.ones(1))  #: scale
        self.register_buffer("steps", torch.zeros(1))  #: steps
        self.register_parameter(name="shift", param=nn.Parameter(torch.ones(1)))  #: shift
        self.add_module("extra", nn.Linear(1, 1))  #: extra.weight
        setattr(self, "late", nn.Linear(1, 1))  #: late.weight
        for i in range(3):
            setattr(self, f"layer{i}", nn.Linear(1, 1))  #: layer0.weight layer2.bias
            self.add_module("made_%d" % i, nn.Linear(1, 1))
""",
    "containers": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3),  #: net.0.weight
            nn.Sequential(
                nn.ReLU(),
                nn.Linear(1, 1),  #: net.1.1.weight
            ),
        )
        self.heads = nn.ModuleDict({
            "cls": nn.Linear(1, 1),  #: heads.cls.weight
            "box": nn.Linear(1, 1),  #: heads.box.bias
        })
        self.named = nn.Sequential(OrderedDict([
            ("up", nn.Linear(1, 1)),  #: named.up.weight
            ("down", nn.Linear(1, 1)),  #: named.down.weight
        ]))
        self.blocks = nn.ModuleList([nn.Linear(1, 1) for _ in range(4)])  #: blocks.0.weight blocks.3.weight
        self.listed = nn.ModuleList([
            nn.Linear(1, 1),  #: listed.0.weight
        ])
        self.grown = nn.ModuleList()
        for _ in range(2):
            self.grown.append(nn.Linear(1, 1))  #: grown.0.weight grown.1.bias
        self.starred = nn.Sequential(*[nn.Linear(1, 1) for _ in range(2)])  #: starred.1.weight
""",
    "nested classes": """
class Block(nn.Module):  #: stem.other
    def __init__(self):
        super().__init__()
        self.lin = nn.Linear(1, 1)  #: blocks.1.lin.weight stem.lin.bias

class Dynamic(nn.Module):  #: dynamic.odd
    def __init__(self):
        super().__init__()
        for name in ("odd",):
            self._parameters[name] = nn.Parameter(torch.ones(1))

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = Block()
        self.stem.extra = nn.Linear(1, 1)  #: stem.extra.weight
        self.blocks = nn.ModuleList([Block(), Block()])
        self.dynamic = Dynamic()
""",
    "inheritance": """
class Base(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Linear(1, 1)  #: stem.weight
        self.fc = nn.Linear(1, 1)

class Net(Base):  #: nowhere
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 2)  #: fc.weight
""",
    "a backbone of somebody else's": """
class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.backbone = resnet18()  #: backbone.layer1.0.conv1.weight backbone.zz
        self.backbone.fc = nn.Identity()  #: backbone.fc.weight
        self.backbone.layer4[0].conv1 = nn.Conv2d(1, 1, 1)  #: backbone.layer4.0.conv1.weight
        del self.backbone.layer3  #: backbone.layer3.0.conv1.weight
""",
}
FACTORIES = {
    "surgery": """
def build():
    model = resnet18()  #: conv1.weight layer2.0.conv1.weight
    model.fc = nn.Sequential(
        nn.Dropout(),
        nn.Linear(512, 10),  #: fc.1.weight
    )
    model.layer1[1].conv2 = nn.Conv2d(64, 64, 1)  #: layer1.1.conv2.weight
    model._modules["bn1"] = nn.Identity()  #: bn1.weight
    del model.layer4  #: layer4.0.conv1.weight
    model.add_module("tail", nn.Linear(1, 1))  #: tail.bias
    return model
""",
    "helpers": """
def change_head(net):
    net.fc = nn.Linear(512, 10)  #: fc.weight

def widen(m):
    m.conv1 = nn.Conv2d(1, 64, 7)  #: conv1.weight
    return m

def build():
    model = resnet18()
    change_head(model)
    return widen(model)  #: bn1.weight
""",
    "another variable": """
class Net(nn.Module):
    def __init__(self, backbone):
        super().__init__()
        self.backbone = backbone  #: backbone.conv1.weight
        self.fc = nn.Linear(1, 1)  #: fc.weight

def build():
    backbone = resnet18()
    backbone.fc = nn.Identity()
    return Net(backbone)
""",
    "an expression": """
def build():
    return nn.Sequential(
        nn.Linear(1, 1),  #: 0.weight
        nn.Linear(1, 1),  #: 1.weight
    )
""",
    "extraction": """
def build():
    return nn.Sequential(*list(resnet18().children())[:-2])  #: 0.weight 4.0.conv1.weight
""",
}


def marks(source):
    return {
        key: number
        for number, line in enumerate(source.splitlines(), 1)
        for key in (re.search(r"#: (.*)", line) or ["", ""])[1].split()
    }


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def found(spec, keys):
    places = build(parse_model_spec(spec)).places(list(keys))
    assert {place.file for place in places.values()} <= {"model.py"}
    return {key: places[key].line for key in keys if key in places}


@pytest.mark.parametrize("name", SOURCES)
def test_classes(name):
    source = HEAD + SOURCES[name]
    Path("model.py").write_text(source)
    assert len(marks(source)) > 2
    assert found("model.py:Net", marks(source)) == marks(source)


@pytest.mark.parametrize("name", SOURCES)
def test_the_class_behind_a_function_that_only_builds_it(name):
    source = HEAD + SOURCES[name] + "\ndef build():\n    net = Net()\n    return net\n"
    Path("model.py").write_text(source)
    assert found("model.py:build", marks(source)) == marks(source)


@pytest.mark.parametrize("name", FACTORIES)
def test_functions(name):
    source = HEAD + FACTORIES[name]
    Path("model.py").write_text(source)
    assert found("model.py:build", marks(source)) == marks(source)


def test_an_instance_in_a_file():
    source = HEAD + "net = resnet18()  #: conv1.weight\nnet.fc = nn.Linear(512, 2)  #: fc.bias\n"
    Path("model.py").write_text(source)
    assert found("model.py:net", marks(source)) == marks(source)


def test_installed_code_is_nobodys_to_change():
    assert build(parse_model_spec("torchvision.models:resnet18")).places(["fc.weight", "x"]) == {}


def test_a_file_outside_of_the_current_folder_keeps_its_whole_path(tmp_path, monkeypatch):
    Path("model.py").write_text(HEAD + SOURCES["inheritance"])
    Path("below").mkdir()
    monkeypatch.chdir("below")
    (place,) = build(parse_model_spec("../model.py:Net")).places(["fc.weight"]).values()
    assert place.file == str(tmp_path / "model.py")


def test_the_process_answers_the_same():
    source = HEAD + SOURCES["attributes"]
    Path("model.py").write_text(source)
    with open_model(parse_model_spec("model.py:Net")) as model:
        places = model.places(list(marks(source)))
    assert places == {key: Place("model.py", line) for key, line in marks(source).items()}


def test_a_source_that_changed_or_is_gone_costs_no_verdict():
    Path("model.py").write_text(HEAD + SOURCES["inheritance"])
    with open_model(parse_model_spec("model.py:Net")) as model:
        assert model.manifest
        Path("model.py").write_text("def (")
        assert model.places(["fc.weight", "", "..", "fc..weight"]) is not None


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = nn.Linear(1, 1)


def test_a_class_typed_at_a_prompt_has_no_place():
    namespace = {"__name__": "__main__", "nn": nn}
    exec("class Net(nn.Linear):\n    pass", namespace)
    assert LiveModel(namespace["Net"](1, 1)).places(["weight", "gone"]) == {}


def test_a_live_module():
    place = LiveModel(Own()).places(["fc.weight"])["fc.weight"]
    assert Path(place.file).resolve() == Path(__file__).resolve()
    assert "self.fc = " in Path(__file__).read_text().splitlines()[place.line - 1]
