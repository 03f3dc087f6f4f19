"""Areas 0 and 5: the file itself. Readers raise the unreadable ones as FormatError with the code."""

from __future__ import annotations

from collections.abc import Iterator

from .base import Contract, Evidence, Finding, Fix, Rule, drop_fix, shape_text

UNREADABLE_FILE = Rule(
    code="CKPT001",
    name="unreadable-file",
    breaks=Contract.open,
    summary="the file is in no known format, cut short, or empty",
    messages={"": "{reason}"},
    why="Nothing can be loaded from it; torch's own message often suggests an unsafe load instead.",
    fix="Get the file again: a git-LFS pointer, a web page and an interrupted download are each named as such.",
    example="version https://git-lfs.github.com/spec/v1   (134 bytes, called resnet50.pth)",
)
CORRUPT_ARCHIVE = Rule(
    code="CKPT002",
    name="corrupt-archive",
    breaks=Contract.open,
    summary="the zip directory, the pickle or a storage contradicts itself or points out of bounds",
    messages={"": "{reason}"},
    why="Two readers of such a file may see different weights; torch accepts several of these without a word.",
    fix="Save the file again from its source. No part of a contradictory archive is worth trusting.",
    example="a view of 4,000 bytes on a storage record of 40 bytes",
)
INVALID_HEADER = Rule(
    code="CKPT003",
    name="invalid-header",
    breaks=Contract.open,
    summary="a safetensors header overlaps, leaves holes, repeats a key or runs past the end",
    messages={"": "{reason}"},
    why="Readers differ on which bytes such a header means.",
    fix="Convert the file again with a current safetensors.",
    example="two tensors with the same data_offsets",
)
NEEDS_FULL_PICKLE = Rule(
    code="CKPT004",
    name="needs-full-pickle",
    breaks=Contract.open,
    summary="the pickle names globals outside torch's allow list: torch.load(weights_only=True) raises",
    messages={"": "torch.load opens it only with a full pickle: {globals}"},
    details={"": "ckptaudit reads these as inert data; nothing in the file is executed"},
    columns=(),
    why="Since torch 2.6 torch.load refuses such a file by default, and a full pickle can run any code.",
    fix="Save the state dict alone: torch.save(model.state_dict(), path), or convert it to safetensors.",
    example='torch.save({"args": argparse.Namespace(lr=1), "model": net.state_dict()}, "best.pth")',
)
LEGACY_FORMAT = Rule(
    code="CKPT005",
    name="legacy-format",
    fixed="note",
    summary="written in the format before torch 1.6 (a pickle stream or a tar)",
    messages={"": "written in a format of before torch 1.6 ({format})"},
    columns=(),
    why="It cannot be memory-mapped, and loading reads every byte of it.",
    fix="Save it once with a current torch, or convert it to safetensors.",
    example="torch.save(state, path, _use_new_zipfile_serialization=False)",
)
NO_STATE_DICT = Rule(
    code="CKPT006",
    name="no-state-dict",
    breaks=Contract.open,
    summary="no mapping of names to tensors in it, or several and none chosen",
    messages={"": "{reason}"},
    why="load_state_dict wants one mapping of names to tensors; a guess would load the wrong network.",
    fix="Name the one you mean after a hash sign: ckptaudit diff model.py 'FILE#generator'.",
    example='torch.save({"generator": g.state_dict(), "discriminator": d.state_dict()}, "gan.pth")',
)
NON_TENSOR_ENTRY = Rule(
    code="CKPT007",
    name="non-tensor-entry",
    breaks=Contract.partial,
    summary="a key of the model holds a list, an array or a number in the checkpoint",
    messages={"": "{count} {tensors} of the model {are} no tensor in the checkpoint"},
    details={"": "strict=True and strict=False both raise"},
    why="load_state_dict raises for any value that is no tensor, strict or not.",
    fix="Turn the value into a tensor before saving, or drop the key and keep the model's own.",
    example='state["fc.bias"] = state["fc.bias"].tolist()',
)
OVERSIZED_STORAGE = Rule(
    code="CKPT008",
    name="storage-larger-than-tensors",
    fixed="note",
    summary="views were saved with the whole storage behind them",
    messages={"": "{count} {tensors} saved with more storage than shown ({extra} bytes more)"},
    details={"": "the rest of the storage lies in the file and no tensor shows it"},
    columns=("key", "shown", "stored"),
    why="The file is larger than its tensors; a slice of an embedding can carry the whole table.",
    fix="Clone before saving: {k: v.clone() for k, v in state.items()}.",
    example='torch.save({"w": embedding.weight[:10]}, path)   # stores every row',
)
WEIGHTS_NEVER_WRITTEN = Rule(
    code="CKPT009",
    name="weights-never-written",
    breaks=Contract.open,
    summary="the memory of tensors is in the file, and nothing was ever stored in it",
    messages={"": "the memory of {count} {tensors} was never written ({size} bytes)"},
    columns=(),
    why="The file has its full size and loads without a word; the weights are zeros.",
    fix="Get the file again, or write the weights: torch.serialization.skip_data leaves them out on purpose.",
    example="with torch.serialization.skip_data(): torch.save(state, path)",
)
SHARD_MISSING = Rule(
    code="CKPT501",
    name="shard-missing",
    breaks=Contract.open,
    summary="the index names a file that is not there",
    messages={"": "{reason}"},
    why="Part of the weights is absent, and some loaders go on without it.",
    fix="Fetch the shard that is named; all files of the index belong in one folder.",
    example="model.safetensors.index.json without model-00002-of-00003.safetensors",
)
SHARD_INDEX_MISMATCH = Rule(
    code="CKPT502",
    name="shard-index-mismatch",
    breaks=Contract.open,
    summary="a key is not in the shard that the index names, or is in another",
    messages={"": "{reason}"},
    why="Loaders that trust the index and loaders that read every shard see different checkpoints.",
    fix="Write the shards and their index again together.",
    example="shards of two training runs under one index",
)
DUPLICATE_ACROSS_SHARDS = Rule(
    code="CKPT503",
    name="duplicate-across-shards",
    breaks=Contract.open,
    summary="one key lies in two shards of an index",
    messages={"": "{reason}"},
    why="Which of the two is loaded depends on the order in which a loader opens the shards.",
    fix="Write the shards and their index again together.",
    example="fc.weight in model-00001-of-00002.safetensors and in model-00002-of-00002.safetensors",
)
TOTAL_SIZE_WRONG = Rule(
    code="CKPT504",
    name="total-size-wrong",
    fixed="note",
    summary="the total size that an index states is not that of its shards",
    messages={"": "{reason}"},
    columns=(),
    why="Loaders ignore it; tools that reserve memory or disk by it are misled, and shards may have been exchanged.",
    fix="Write the index again with its shards.",
    example='{"metadata": {"total_size": 1}, "weight_map": ...}',
)
CHUNK_GAP_OR_OVERLAP = Rule(
    code="CKPT505",
    name="chunk-gap-or-overlap",
    breaks=Contract.open,
    summary="the chunks of a distributed checkpoint do not tile the tensor",
    messages={"": "{reason}"},
    why="Elements that no chunk holds keep whatever the model had; of two chunks the one read later wins.",
    fix="Save the checkpoint again with all ranks present.",
    example="a tensor of 8 rows with the chunks [0, 4) and [5, 8)",
)


def check_globals(evidence: Evidence) -> Iterator[Finding]:
    """Name the globals for which torch.load needs a full pickle; programs are not for torch.load at all."""
    if evidence.checkpoint is None or evidence.checkpoint.format in ("torchscript", "torch-export"):
        return
    names = sorted({item.name for item in evidence.checkpoint.globals if item.verdict == "inert"})
    if names:
        yield Finding(
            NEEDS_FULL_PICKLE,
            data={"globals": ", ".join(names), "names": names},
            rows=tuple((name,) for name in names),
            fixes=(Fix("display", "save the state dict alone: torch.save(model.state_dict(), path)"),),
        )


def check_legacy(evidence: Evidence) -> Iterator[Finding]:
    """Note the formats of before torch 1.6."""
    checkpoint = evidence.checkpoint
    if checkpoint is not None and checkpoint.format in ("torch-legacy", "torch-tar"):
        yield Finding(LEGACY_FORMAT, data={"format": checkpoint.format})


def check_non_tensors(evidence: Evidence) -> Iterator[Finding]:
    """Yield keys of the model that hold no tensor in the checkpoint."""
    alignment = evidence.alignment
    if keys := alignment.non_tensor_keys:
        rows = tuple((key, alignment.checkpoint.entries[key], shape_text(alignment.model[key].shape)) for key in keys)
        yield Finding(NON_TENSOR_ENTRY, keys, rows=rows, fixes=drop_fix(evidence, keys), mapped=evidence.mapped)


def check_oversized(evidence: Evidence) -> Iterator[Finding]:
    """Yield views that were saved with more storage than they show."""
    manifest = evidence.as_is.checkpoint
    repeated = {key for group in manifest.ties() for key in group[1:]}
    shown: dict[str, int] = {}
    for key, spec in manifest.tensors.items():
        if spec.storage is not None and spec.layout == "strided" and key not in repeated:
            shown[spec.storage] = shown.get(spec.storage, 0) + spec.nbytes
    rows = []
    extra: dict[str, int] = {}
    for key, spec in manifest.tensors.items():
        stored = spec.storage_nbytes or 0
        if spec.storage in shown and stored > shown[spec.storage]:
            rows.append((key, f"{spec.nbytes:,} B", f"{stored:,} B"))
            extra[spec.storage] = stored - shown[spec.storage]
    if rows:
        yield Finding(
            OVERSIZED_STORAGE,
            tuple(row[0] for row in rows),
            data={"extra": sum(extra.values())},
            rows=tuple(rows),
        )


CHECKS = (check_globals, check_legacy, check_non_tensors, check_oversized)
