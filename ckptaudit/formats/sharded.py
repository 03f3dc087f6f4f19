"""A state dict spread over several files, and the ``*.index.json`` that says which key lies where.

Nothing signs an index, so nothing in it is believed: shards are files of the index's own folder, of the one
kind the index is for, and hold exactly the keys the index says.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping

from ..errors import FormatError
from ..manifest import Manifest, TensorSpec
from ..records import replace
from .base import ByteSource, Candidate, Checkpoint, Global, Limits, RawTensor, Remark, over_limit
from .choice import choose
from .identify import identify
from .noted import METADATA, NAME, Noted, noted_in
from .strict_json import RepeatedKey, strict_object, tokens_of

ReadShard = Callable[[ByteSource, str, Limits, bool], Checkpoint]

_SHARD_KINDS = {  # what the shards of an index are: format of the whole, formats of the parts
    ".safetensors": ("sharded-safetensors", ("safetensors",)),
    ".bin": ("sharded-torch", ("torch-zip", "torch-legacy")),
}
_AGAIN = "download the index and its shards again, from one place"
_LONGEST_NAME = 255  # bytes of a file's name
_SHOWN = 3  # shards in an error
_SHOWN_CHARACTERS = 40


def read_sharded(
    source: ByteSource, *, read_shard: ReadShard, wanted: str, limits: Limits, allow_refused: bool
) -> Checkpoint:
    """Read an index and the headers of its shards; the state dict's keys keep the order of the index.

    ``read_shard(source, wanted, limits, allow_refused)`` opens one shard. ``details`` holds the number of
    shards, and ``total_size`` in bytes as the index states it, beside ``total_size_actual`` where it is
    wrong. Raises FormatError: CKPT501 for a shard that is not there, CKPT705 for one outside of the folder, CKPT502
    where the index and a shard disagree on the keys, CKPT503 where two shards have one key, CKPT001 for an index
    that is none.
    """
    whole_limits = limits
    weight_map, metadata = _read_index(source, limits)
    names = list(dict.fromkeys(weight_map.values()))
    whole, parts = _kinds(source.path, names)
    if len(names) > limits.shards:
        raise over_limit(source.path, f"is not read: it names {len(names):,} shards", "shards", limits, len(names))
    shards: dict[str, Checkpoint] = {}
    for name in names:
        shard = ByteSource(_shard_path(source.path, name))
        kind = identify(shard, limits)
        if kind not in parts:
            reason = f"names the shard {name!r}, which is a {kind} file in an index of {whole.partition('-')[2]}"
            raise FormatError(source.path, f"{reason} files", _AGAIN, code="CKPT502")
        shards[name] = replace(read_shard(shard, "", limits, allow_refused), read_payload=None)
        limits = _left(limits, shards[name])
    _check_keys(source.path, weight_map, shards)
    merged = _merged_raw(weight_map, shards)
    noted = noted_in(source.path, _metadata(metadata, shards), merged, whole_limits)
    return _merged(source, whole, weight_map, shards, noted, metadata.get("total_size"), wanted)


def _left(limits: Limits, shard: Checkpoint) -> Limits:
    """Return what is left of the limits for the other shards: a thousand of them may not cost more than one file."""
    overhead = max(0, shard.size - sum(raw.nbytes for raw in shard.raw[shard.chosen.path].values()))
    pickled = shard.records["data.pkl"].size if "data.pkl" in shard.records else overhead
    return replace(
        limits,
        tensors=limits.tensors - len(shard.manifest.all_keys),
        zip_entries=limits.zip_entries - len(shard.records),
        pickle_bytes=max(0, limits.pickle_bytes - pickled),
        safetensors_header_bytes=limits.safetensors_header_bytes - overhead,
    )


def _read_index(source: ByteSource, limits: Limits) -> tuple[dict[str, str], dict[str, object]]:
    """Return the weight map, and what the index says about the whole."""
    data = source.read(0, source.size)
    if tokens_of(data) > limits.json_tokens:
        reason = f"is not read: it has more than {limits.json_tokens:,} JSON tokens"
        raise over_limit(source.path, reason, "json_tokens", limits)
    try:
        index = json.loads(data.decode(), object_pairs_hook=strict_object)
    except ValueError as error:
        raise FormatError(source.path, f"is no index of shards: {error}", _AGAIN) from None
    except RecursionError:
        raise FormatError(source.path, "is no index of shards: it is nested too deeply", _AGAIN) from None
    weight_map = index.get("weight_map") if isinstance(index, dict) else index
    if isinstance(weight_map, RepeatedKey):
        raise FormatError(source.path, f"names {weight_map.key!r} twice", _AGAIN, code="CKPT502")
    if not isinstance(weight_map, dict) or not all(isinstance(name, str) for name in weight_map.values()):
        reason = "is no index of shards: its weight_map is no object of file names"
        raise FormatError(source.path, reason, _AGAIN)
    if not weight_map:
        raise FormatError(source.path, "is an index without a single key", _AGAIN)
    longest = max(weight_map, key=len)
    if len(longest) > limits.key_bytes:
        raise over_limit(source.path, f"names a key of {len(longest):,} characters", "key_bytes", limits, len(longest))
    metadata = index.get("metadata")
    repeated = metadata.get("total_size") if isinstance(metadata, dict) else metadata
    if isinstance(repeated, RepeatedKey):
        raise FormatError(source.path, f"names {repeated.key!r} twice", _AGAIN, code="CKPT502")
    return weight_map, metadata if isinstance(metadata, dict) else {}


def _kinds(path: str, names: list[str]) -> tuple[str, tuple[str, ...]]:
    """Return the kind of the index, which its name and those of its shards declare: loaders go by them."""
    suffixes = {os.path.splitext(name)[1] if len(name) <= _LONGEST_NAME else "" for name in names}
    own = os.path.splitext(path.removesuffix(".index.json"))[1]
    suffixes |= {own} & set(_SHARD_KINDS)
    if len(suffixes) == 1:
        kinds = _SHARD_KINDS.get(suffixes.pop())
        if kinds:
            return kinds
    listed = ", ".join(repr(name[:_LONGEST_NAME]) for name in names[:_SHOWN])
    reason = f"is no index of shards of one kind, .safetensors or .bin: {listed}"
    raise FormatError(path, reason, _AGAIN, code="CKPT502")


def _shard_path(index: str, name: str) -> str:
    """Return where the shard lies: a file of the index's folder, under a name without a way out of it."""
    if name in ("", ".", "..") or any(char in "/\\:" or not char.isprintable() for char in name):
        reason = f"names the shard {name!r}, which is not the name of a file in its folder"
        raise FormatError(index, reason, "do not load it; ask where the index comes from", code="CKPT705")
    folder = os.path.dirname(index) or "."
    path = os.path.join(folder, name)
    if not os.path.isfile(path):
        reason = f"names the shard {name!r}, which is not there"
        raise FormatError(index, reason, f"download {name} into {folder}", code="CKPT501")
    if not within(os.path.realpath(path), os.path.realpath(folder)):
        reason = f"names the shard {name!r}, a link to a file outside of its folder"
        raise FormatError(index, reason, f"copy the file itself into {folder}", code="CKPT705")
    return path


def within(path: str, folder: str) -> bool:
    """Tell whether a resolved path lies in a folder, or in the store that a Hugging Face cache links to.

    That cache fills ``models--NAME/snapshots/REVISION/`` with links into ``models--NAME/blobs/``.
    """
    repository, found, _ = folder.rpartition(f"{os.sep}snapshots{os.sep}")
    allowed = {folder, os.path.join(repository, "blobs")} if found else {folder}
    return os.path.dirname(path) in allowed


def _check_keys(path: str, weight_map: Mapping[str, str], shards: Mapping[str, Checkpoint]) -> None:
    """Check that every shard holds the keys that the index puts there, and no other."""
    held = {name: dict.fromkeys(shard.manifest.all_keys) for name, shard in shards.items()}
    absent = [key for key, name in weight_map.items() if key not in held[name]]
    if absent:
        reason = f"puts {_listed(absent)} into {weight_map[absent[0]]}, which does not hold it"
        raise FormatError(path, reason, _AGAIN, code="CKPT502")
    places: dict[str, str] = {}
    for name, keys in held.items():
        for key in keys:
            if places.setdefault(key, name) != name:
                reason = f"has the key {key!r} in two of its shards, {places[key]} and {name}"
                raise FormatError(path, reason, _AGAIN, code="CKPT503")
    for name, keys in held.items():
        extra = [key for key in keys if weight_map.get(key) != name]
        if extra:
            place = weight_map.get(extra[0])
            where = f"puts it into {place}" if place else "does not name it"
            reason = f"does not fit {name}, which holds {_listed(extra)}: the index {where}"
            raise FormatError(path, reason, _AGAIN, code="CKPT502")


def _listed(keys: list[str]) -> str:
    rest = f" and {len(keys) - 1:,} more" if len(keys) > 1 else ""
    return f"{keys[0]!r}{rest}"


def _merged_raw(weight_map: Mapping[str, str], shards: Mapping[str, Checkpoint]) -> dict[str, RawTensor]:
    """Return where the tensors lie, in the order of the index; storages of two shards are never one."""
    raw: dict[str, RawTensor] = {}
    for key, name in weight_map.items():
        shard = shards[name]
        if key in shard.raw[shard.chosen.path]:
            tensor = shard.tensor(key)
            raw[key] = replace(tensor, spec=_spec_of_whole(tensor.spec, name))
    return raw


def _spec_of_whole(spec: TensorSpec, shard: str) -> TensorSpec:
    return replace(spec, storage=f"{shard}:{spec.storage}" if spec.storage is not None else None)


def _metadata(metadata: Mapping[str, object], shards: Mapping[str, Checkpoint]) -> dict[str, str]:
    """Return the texts that all shards have in their headers, and the notes of the index."""
    texts = {
        name: text
        for shard in shards.values()
        for name, text in shard.details.items()
        if name.startswith(METADATA) and all(other.details.get(name) == text for other in shards.values())
    }
    notes = metadata.get(NAME)
    return {**texts, f"{METADATA}{NAME}": notes} if isinstance(notes, str) else texts


def _merged(
    source: ByteSource,
    whole: str,
    weight_map: Mapping[str, str],
    shards: Mapping[str, Checkpoint],
    noted: Noted,
    stated: object,
    wanted: str,
) -> Checkpoint:
    entries: dict[str, str] = {}
    tensors: dict[str, TensorSpec] = {}
    for key, name in weight_map.items():
        shard = shards[name]
        if key in shard.manifest.entries:
            entries[key] = shard.manifest.entries[key]
        else:
            tensors[key] = _spec_of_whole(shard.manifest[key], name)
    versions = {
        module: version for shard in shards.values() for module, version in (shard.manifest.versions or {}).items()
    }
    known = noted.versions if noted.versions is not None else versions or None
    manifest = replace(noted, versions=known).manifest(tensors, entries, source.path)
    only = Candidate("", "state_dict", manifest)
    return Checkpoint(
        source.path,
        whole,
        sum(shard.size for shard in shards.values()),
        (only,),
        choose((only,), wanted=wanted, subject=source.path),
        {"": noted.raw},
        tuple(_globals(shards)),
        details=noted.details(_details(len(shards), stated, manifest.nbytes)),
        remarks=(*_of_shards(shards), *_size_remarks(stated, manifest)),
        source=source,
        parts=tuple(shards.values()),
        read_payload=lambda: noted.payload,
    )


def _globals(shards: Mapping[str, Checkpoint]) -> Iterator[Global]:
    for name, shard in shards.items():
        for found in shard.globals:
            yield replace(found, member=f"{name}:{found.member}")


def _of_shards(shards: Mapping[str, Checkpoint]) -> Iterator[Remark]:
    for name, shard in shards.items():
        for remark in shard.remarks:
            yield replace(remark, reason=f"{remark.reason} (in {name})")


def _size_remarks(stated: object, manifest: Manifest) -> Iterator[Remark]:
    """Compare the total size that the index states with both ways to count: storages once, and every tensor."""
    tensors = sum(spec.nbytes for spec in manifest.tensors.values())
    if stated is not None and (isinstance(stated, str | bool) or stated not in (manifest.nbytes, tensors)):
        shown = f"{stated:,}" if type(stated) is int else ascii(stated)[:_SHOWN_CHARACTERS]
        yield Remark("CKPT504", f"states a total size of {shown} bytes, its tensors have {manifest.nbytes:,}")


def _details(shards: int, stated: object, actual: int) -> dict[str, str]:
    details = {"shards": str(shards)}
    if stated is not None:
        details["total_size"] = str(stated)[:_SHOWN_CHARACTERS]
        if stated != actual:
            details["total_size_actual"] = str(actual)
    return details
