"""What ``ckptaudit convert`` notes in a safetensors file, so that nothing that the format lacks is lost.

One text, ``ckptaudit`` in the metadata of the file or of the index of its shards, holds a JSON object:

- ``schema``: ``ckptaudit.notes/1``
- ``aliases``: second names. ``{"lm_head.weight": {"of": "embed.weight", "at": 12}}`` is the same tensor once more, at
  place 12 among the keys; with ``offset``, ``shape`` and ``stride``, in elements, it is another view of its memory
- ``entries``: what is in the state dict and no tensor, ``{"_extra_state": {"at": 3, "value": ...}}``
- ``around``: what the state dict lies in; both as formats/payload.py writes values
- ``versions``: module versions, as ``_metadata`` of a state dict has them
- ``parameters``, ``buffers``, ``requires_grad``: keys of tensors that were saved as such

A fault in it is a fault of the file: its numbers are checked like those of a pickle.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, NoReturn

from ..dtypes import DTYPES
from ..errors import FormatError
from ..manifest import Kind
from ..records import replace
from .base import Limits, Payload, RawTensor, over_limit
from .noted import Noted
from .payload import holds_state_dict, in_places, type_of
from .pickles.rebuild import Rebuilder, Storage
from .strict_json import RepeatedKey, strict_object, tokens_of

SCHEMA = "ckptaudit.notes/1"
_SECTIONS: dict[str, type] = {
    "schema": str,
    "aliases": dict,
    "entries": dict,
    "around": dict,
    "versions": dict,
    "parameters": list,
    "buffers": list,
    "requires_grad": list,
}
_VIEW = ("offset", "shape", "stride")
_MAX_VERSION = 1 << 31
_HINT = "write the file again from its source, with: ckptaudit convert"


def read_notes(
    subject: str, text: str, raw: Mapping[str, RawTensor], metadata: Mapping[str, str], limits: Limits
) -> Noted:
    """Return the tensors of a file in the light of its notes. Raises FormatError CKPT003, CKPT703, CKPT002."""
    reader = _Notes(subject, _parsed(subject, text, limits), limits)
    notes = reader.section("entries")
    payload = Payload(
        {key: note["value"] for key, note in notes.items()},
        reader.data.get("around"),
        metadata,
        places={key: note["at"] for key, note in notes.items()},
    )
    entries = {key: type_of(value) for key, value in payload.entries.items()}
    counts = [f"{len(reader.section(name)):,} {name}" for name in ("aliases", "entries") if reader.section(name)]
    return Noted(reader.marked(raw), payload, entries, reader.versions(), ", ".join(counts))


def _parsed(subject: str, text: str, limits: Limits) -> dict[str, Any]:
    tokens = tokens_of(text.encode())
    if tokens > limits.json_tokens:
        raise over_limit(subject, f"has notes of {tokens:,} JSON tokens", "json_tokens", limits, tokens)
    try:
        data = json.loads(text, object_pairs_hook=_object)
    except (ValueError, RecursionError) as error:
        raise _broken(subject, f"they are no JSON ({error})") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise _broken(subject, f"they are no object of the schema {SCHEMA}")
    for name, value in data.items():
        if name not in _SECTIONS or not isinstance(value, _SECTIONS[name]):
            raise _broken(subject, f"{name[:40]!a} is no part of them")
    return data


def _object(pairs: list[tuple[str, Any]]) -> Any:
    result = strict_object(pairs)
    if isinstance(result, RepeatedKey):
        raise ValueError(str(result))
    return result


def _broken(subject: str, what: str) -> FormatError:
    return FormatError(subject, f"has broken notes of ckptaudit convert: {what}", _HINT, code="CKPT003")


class _Notes:
    def __init__(self, subject: str, data: dict[str, Any], limits: Limits) -> None:
        self.subject = subject
        self.data = data
        self.limits = limits
        self.rebuilder = Rebuilder(subject, lambda _: Storage("", None, 0, ""), limits)
        for name, note in self.section("entries").items():
            self.check_place(name, note)
            if set(note) != {"at", "value"}:
                self.fail(f"the entry {name!a} has no value, or more than that")
        if "around" in data and holds_state_dict(data["around"]) != 1:
            self.fail("no place is left for the state dict in what is around it")

    def section(self, name: str) -> dict[str, Any]:
        found: dict[str, Any] = self.data.get(name, {})
        return found

    def fail(self, what: str) -> NoReturn:
        raise _broken(self.subject, what)

    def check_key(self, key: str) -> None:
        if not key.isprintable() or len(key) > self.limits.key_bytes:
            self.fail(f"the key {key[:40]!a} is too long, or no printable text")

    def marked(self, raw: Mapping[str, RawTensor]) -> dict[str, RawTensor]:
        """Return the tensors with the aliases in their places, each marked as parameter or buffer."""
        aliases = self.section("aliases")
        if len(raw) + len(aliases) > self.limits.tensors:
            reason = f"holds {len(raw) + len(aliases):,} tensors"
            raise over_limit(self.subject, reason, "tensors", self.limits)
        for key, note in aliases.items():
            self.check_place(key, note)
            if key in raw or key in self.section("entries"):
                self.fail(f"the alias {key!a} is a key of the file, too")
            if not set(note) <= {"of", "at", *_VIEW} or not _is_one_of(raw, note.get("of")):
                self.fail(f"the alias {key!a} is one of no tensor")
        kinds = self.kinds()
        places = {key: note["at"] for key, note in (*aliases.items(), *self.section("entries").items())}
        views = {
            key: self.alias(key, aliases[key], raw) if key in aliases else raw[key]
            for key in in_places(raw, places)
            if key in aliases or key in raw
        }
        return {key: _with_kind(view, key, *kinds) for key, view in views.items()}

    def check_place(self, key: str, note: object) -> None:
        self.check_key(key)
        if not isinstance(note, dict) or not _is_count(note.get("at")):
            self.fail(f"{key!a} has no place among the keys")

    def alias(self, key: str, note: dict[str, Any], raw: Mapping[str, RawTensor]) -> RawTensor:
        """Return a second name, or another view, of a tensor."""
        base = raw[note["of"]]
        given = [name for name in _VIEW if name in note]
        if not given:
            return base
        if len(given) != len(_VIEW):
            self.fail(f"the alias {key!a} is a view without {', '.join(sorted(set(_VIEW) - set(given)))}")
        spec = base.spec
        storage = Storage(spec.storage or "", spec.dtype, base.nbytes, "cpu")
        view = self.rebuilder.view(storage, spec.dtype, (note["offset"], note["shape"], note["stride"]), key)
        return replace(base, spec=replace(view, location=None))

    def kinds(self) -> tuple[frozenset[str], frozenset[str], frozenset[str]]:
        found = [self.data.get(name, []) for name in ("parameters", "buffers", "requires_grad")]
        if not all(isinstance(key, str) for keys in found for key in keys):
            self.fail("a key among the parameters or buffers is no text")
        parameters, buffers, grads = map(frozenset, found)
        return parameters, buffers, grads

    def versions(self) -> dict[str, int | None] | None:
        versions: dict[str, int | None] | None = self.data.get("versions")
        for module, version in (versions or {}).items():
            if version is not None and (type(version) is not int or abs(version) >= _MAX_VERSION):
                self.fail(f"the version of the module {module!a} is no small number")
        return versions


def _with_kind(
    raw: RawTensor, key: str, parameters: frozenset[str], buffers: frozenset[str], grads: frozenset[str]
) -> RawTensor:
    kind: Kind = "parameter" if key in parameters else "buffer" if key in buffers else "tensor"
    if kind == "tensor" and key not in grads:
        return raw
    grad = key in grads and DTYPES[raw.spec.dtype].kind in ("float", "complex")
    return replace(raw, spec=replace(raw.spec, kind=kind, requires_grad=grad))


def _is_one_of(raw: Mapping[str, RawTensor], key: object) -> bool:
    return isinstance(key, str) and key in raw


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value < 1 << 32  # of keys: far more than are read
