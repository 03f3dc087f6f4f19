"""The archives of ``torch.export.save``: the weights of exported programs, and no values.

Since torch 2.8 (``.pt2``) raw records and JSON that describes them; before, and in the first of those archives, nested
files of torch.save. torch.export.load unpickles every nested file in full where weights_only refuses it, so that all
of them go through the readers of such files.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NoReturn

from ...dtypes import DTYPES
from ...errors import FormatError
from ...manifest import Manifest, TensorSpec
from ...records import dataclass, field, replace
from ..base import ByteSource, Candidate, Checkpoint, Global, Limits, RawTensor, Record, Remark
from ..choice import choose
from ..identify import identify
from ..oddities import embedded_pickles, unaccounted_records
from ..pickles.globals import refuse_globals
from ..pickles.machine import Spent
from ..pickles.rebuild import Rebuilder, Storage
from .export_payloads import Payload, TensorMeta, payloads, read_json
from .export_program import judge_program
from .saved_zip import read_saved
from .script import in_script
from .zip_archive import Archive, merged
from .zip_directory import read_zip_directory

_MODELS, _WEIGHTS, _CONSTANTS, _INPUTS = "models/", "data/weights/", "data/constants/", "data/sample_inputs/"
_COMPILED = "data/aotinductor/"
_OLD_PROGRAM = "serialized_exported_program.json"
_VERSION = "0"  # of the layout; torch reads no other
_LARGEST = (1 << 63) - 1
# Names that torch knows and nothing here refers to: what else an archive may carry.
_KNOWN = frozenset({"archive_format", "archive_version", ".data/version"})
_OLD_EXTRA = "extra_files/"
_KNOWN_FOLDERS = ("extra/", _OLD_EXTRA, _COMPILED, "data/executorch/", "data/mtia/", "xl_model_weights/")


def read_torch_export(
    source: ByteSource, found: Mapping[str, Record], *, wanted: str, limits: Limits, allow_refused: bool
) -> Checkpoint:
    """Describe an archive of exported programs; ``found`` is its directory.

    Raises FormatError: CKPT701 or CKPT702 where a nested pickle names globals that are not plain data, or where
    torch.export.load runs code of the file as it opens it, unless ``allow_refused``; CKPT002 and CKPT703 as the
    parts do.
    """
    old = _OLD_PROGRAM in found
    top = "" if old else next(iter(found)).partition("/")[0]
    reader = _Reader(Archive(source, found, limits, top=top, writer="torch.export.save"))
    models = {"model": reader.old_program()} if old else reader.programs()
    judged = merged(reader.globals)
    if not allow_refused:
        refuse_globals(source.path, judged)
        _refuse_running(source.path, reader.remarks)
    candidates, raw = _candidates(source.path, models)
    nothing = FormatError(source.path, "holds no exported program", "name the file that holds it", code="CKPT006")
    return Checkpoint(
        path=source.path,
        format="torch-export",
        size=source.size,
        candidates=candidates,
        choice=choose(candidates, wanted=wanted, subject=source.path) if models else nothing,
        raw=raw,
        globals=judged,
        details=reader.facts(),
        remarks=(*unaccounted_records(reader.archive.records, reader.known), *reader.remarks),
        source=source,
        records=reader.archive.records,
    )


def is_export_record(name: str) -> bool:
    """Tell whether torch knows a record by its name alone; the others are named by the JSON of the archive."""
    return name in _KNOWN or name.startswith(_KNOWN_FOLDERS)


def _refuse_running(subject: str, remarks: list[Remark]) -> None:
    """Refuse an archive whose code runs before anybody calls the program."""
    for remark in remarks:
        if remark.code == "CKPT702":
            raise FormatError(subject, remark.reason, "do not load it with torch.export.load", code="CKPT702")


@dataclass
class _Weights:
    """The state dict of one program."""

    tensors: dict[str, TensorSpec] = field(default_factory=dict)
    raw: dict[str, RawTensor] = field(default_factory=dict)
    entries: Mapping[str, str] = field(default_factory=dict)
    versions: Mapping[str, int | None] | None = None


def _candidates(
    subject: str, models: Mapping[str, _Weights]
) -> tuple[tuple[Candidate, ...], dict[str, dict[str, RawTensor]]]:
    """Return the state dicts; where there are several, they go by the names of their programs."""
    found, raw = [], {}
    for name, weights in models.items():
        path = name if len(models) > 1 else ""
        shown = f"{subject}#{path}" if path else subject
        manifest = Manifest(weights.tensors, weights.entries, weights.versions, source=shown)
        found.append(Candidate(path, "state_dict", manifest))
        raw[path] = weights.raw
    return tuple(found), raw


class _Reader:
    """Reads one archive and notes what it saw: the records it knows, the globals of all pickles, remarks."""

    def __init__(self, archive: Archive) -> None:
        self.archive = archive
        self.source = archive.source
        self.limits = archive.limits
        self.globals: list[Global] = []
        self.remarks: list[Remark] = []
        self.known = set(filter(is_export_record, archive.records))
        self.constants = 0
        self.rebuilder = Rebuilder(archive.source.path, self._no_pickle, archive.limits)
        self._first: dict[str, TensorMeta] = {}  # what the first tensor of a record is
        self._nested: dict[str, Checkpoint] = {}
        if "data.pkl" in archive.records:
            archive.broken("it is an archive of torch.save and an exported program at once")

    def _no_pickle(self, pid: object) -> NoReturn:
        raise AssertionError(f"a raw tensor refers to {pid}")

    def facts(self) -> dict[str, str]:
        """Return what people may want to know about the container."""
        facts = {"archive version": self.archive.small("archive_version", "") or self.archive.small("version", "")}
        facts["byteorder"] = self.archive.byteorder
        if self.constants:
            facts["constants"] = str(self.constants)
        return facts

    # -- the layouts ------------------------------------------------------------------------------------

    def programs(self) -> dict[str, _Weights]:
        """Read an archive of torch 2.8 and later."""
        archive = self.archive
        layout = archive.small("archive_format", "")
        if layout != "pt2":
            archive.broken(f"its archive_format is {layout[:20]!a}, not 'pt2'")
        version = archive.small("archive_version", "")
        if version != _VERSION:
            reason = f"is an exported program of the archive_version {version[:20]!a}; only '{_VERSION}' is known"
            raise FormatError(archive.source.path, reason, "look for a newer ckptaudit", code="CKPT703")
        self._compiled()
        models = {}
        for record in [name for name in archive.records if name.startswith(_MODELS)]:
            model = record.removeprefix(_MODELS).removesuffix(".json")
            if not record.endswith(".json") or not model:
                archive.broken(f"its record {record} is no program that torch.export.save writes")
            self._program(record)
            models[model] = self._weights(model)
            self._constants(model)
            self._pickled(f"{_INPUTS}{model}.pt", empty=True)
        self._holds([f"{_MODELS}{model}.json" for model in models])
        return models

    def old_program(self) -> _Weights:
        """Read an archive of torch 2.1 to 2.7: up to three nested files of torch.save, and the program."""
        if any("/" in name and not name.startswith(_OLD_EXTRA) for name in self.archive.records):
            self.archive.broken("it has the records of two layouts")
        self._program(_OLD_PROGRAM)
        self.known.add("version")
        weights = self._saved_state(self._old_record("state_dict"))
        for part in ("constants", "example_inputs"):
            if (name := self._old_record(part)) in self.archive.records:
                self._pickled(name, empty=True)
        self._holds([_OLD_PROGRAM])
        return weights

    def _old_record(self, part: str) -> str:
        """Return the name of a part's record; torch 2.1 called files of torch.save JSON."""
        names = [f"serialized_{part}.{suffix}" for suffix in ("json", "pt")]
        there = [name for name in names if name in self.archive.records]
        if len(there) > 1:
            self.archive.broken(f"it has two records for one thing: {' and '.join(there)}")
        return there[0] if there else names[-1]

    def _program(self, name: str) -> None:
        self.known.add(name)
        named, remarks = judge_program(self.archive, name)
        self.globals += named
        self.remarks += remarks

    def _holds(self, programs: list[str]) -> None:
        if programs:
            one = len(programs) == 1
            what = f"an exported program ({programs[0]})" if one else f"{len(programs):,} exported programs"
            runs = "runs when the loaded module is called; only its" if one else "run when they are called; only their"
            self.remarks.append(Remark("CKPT709", f"holds {what}, which {runs} weights were judged"))

    def _compiled(self) -> None:
        """Judge what AOTInductor adds: libraries, which torch opens as it loads the file, and pickled weights."""
        names = [name for name in self.archive.records if name.startswith(_COMPILED)]
        code = [name for name in names if not name.endswith(".json")]
        if code:
            more = f" and {len(code) - 1} more" if len(code) > 1 else ""
            reason = f"holds compiled code ({code[0]}{more}), which torch.export.load runs as it opens the file"
            self.remarks.append(Remark("CKPT702", reason, tuple(code[:100])))
        for name in names:
            if name.endswith("/weights_config.json"):
                for value in read_json(self.archive, name).values():
                    record = value[0] if isinstance(value, list) and value else None
                    if not isinstance(record, str) or f"{_WEIGHTS}{record}" not in self.archive.records:
                        self.archive.broken(f"its {name} names a record that is not there")
                    self._pickled(f"{_WEIGHTS}{record}")

    # -- raw tensors ------------------------------------------------------------------------------------

    def _weights(self, model: str) -> _Weights:
        saved = f"{_WEIGHTS}{model}.pt"
        if saved in self.archive.records:
            return self._saved_state(saved)
        weights = _Weights()
        config = f"{_WEIGHTS}{model}_weights_config.json"
        self.known.add(config)
        for payload in payloads(self.archive, config):
            spec, raw = (self._unpickled if payload.pickled else self._raw)(config, _WEIGHTS, payload)
            weights.tensors[payload.key] = spec
            if raw is not None:
                weights.raw[payload.key] = raw
        return weights

    def _constants(self, model: str) -> None:
        """Judge what a program holds beside its state dict. How torch loads a constant, its record's name tells."""
        saved = f"{_CONSTANTS}{model}.pt"
        if saved in self.archive.records:
            self._pickled(saved, empty=True)
            return
        config = f"{_CONSTANTS}{model}_constants_config.json"
        self.known.add(config)
        for payload in payloads(self.archive, config):
            self.constants += 1
            name = f"{_CONSTANTS}{payload.record}"
            if payload.record.startswith("custom_obj_"):
                self._pickled(name, script=True)
            elif payload.record.startswith("opaque_obj_"):
                self._bare_pickle(name)
            elif not payload.record.startswith("tensor_"):
                self.archive.broken(f"its {config} names the record {payload.record}, which torch does not know")
            elif payload.pickled:
                self._pickled(name)
            else:
                self._raw(config, _CONSTANTS, payload)

    def _raw(self, config: str, folder: str, payload: Payload) -> tuple[TensorSpec, RawTensor]:
        """Describe a view of a raw record, which has to lie inside of it."""
        archive, meta = self.archive, payload.meta
        if meta is None or not meta.strided:
            archive.broken(f"its {config} gives {payload.key!a} raw bytes, but no strided tensor")
        name = f"{folder}{payload.record}"
        record = archive.stored(name)
        self.known.add(name)
        storage = Storage(payload.record, meta.dtype, record.size, meta.device)
        first = self._first.setdefault(name, meta)
        if first.dtype != meta.dtype:
            archive.broken(f"its {config} describes the record {payload.record} in two ways")
        if not record.size and 0 not in meta.shape:
            raise self._weightless(name)
        if record.size % DTYPES[meta.dtype].itemsize:
            archive.broken(f"its record {name} of {record.size:,} bytes ends inside an element of {meta.dtype}")
        spec = self.rebuilder.view(storage, meta.dtype, (meta.offset, meta.shape, meta.stride), payload.key)
        # What is no parameter is a view of the record's first tensor, and takes this from it.
        requires_grad = meta.requires_grad if payload.is_param else first.requires_grad
        spec = replace(_of_program(spec, payload), requires_grad=requires_grad)
        return spec, RawTensor(spec, self.source, record.offset, record.size, archive.byteorder)

    def _weightless(self, name: str) -> FormatError:
        reason = f"is a program without its weights: its record {name} is empty, and torch would load zeros"
        return FormatError(self.source.path, reason, "export it again, from a model that is not a fake", code="CKPT002")

    # -- nested files -----------------------------------------------------------------------------------

    def _unpickled(self, config: str, folder: str, payload: Payload) -> tuple[TensorSpec, RawTensor | None]:
        """Describe a pickled tensor, a subclass; what its pickle does not tell, the config does."""
        name = f"{folder}{payload.record}"
        inner = self._pickled(name)
        found = [(key, c) for c in inner.candidates for key in c.manifest.tensors] if inner else []
        if inner is not None and len(found) == 1:
            key, candidate = found[0]
            spec = candidate.manifest.tensors[key]
            if spec.storage is not None:
                spec = replace(spec, storage=f"{payload.record}/{spec.storage}")
            spec = _of_program(spec, payload)
            raw = inner.raw[candidate.path].get(key)
            return spec, None if raw is None else replace(self._moved(name, raw), spec=spec)
        meta = payload.meta
        if meta is None:
            self.archive.broken(f"its {config} gives {payload.key!a} a pickle that holds no tensor")
        whole = Storage(payload.record, meta.dtype, _LARGEST, meta.device)  # there is no memory to compare it with
        spec = self.rebuilder.view(whole, meta.dtype, (meta.offset, meta.shape, meta.stride), payload.key)
        spec = replace(spec, storage=None, storage_nbytes=None, requires_grad=meta.requires_grad)
        return _of_program(spec, payload), None

    def _saved_state(self, name: str) -> _Weights:
        """Read a whole state dict that torch.save has written."""
        inner = self._pickled(name, empty=True)
        if inner is None or not inner.candidates:
            return _Weights()
        state = next((c for c in inner.candidates if not c.path and c.kind == "state_dict"), None)
        if state is None:
            self.archive.broken(f"its {name} holds no state dict")
        raw = {key: self._moved(name, raw) for key, raw in inner.raw[""].items()}
        return _Weights(dict(state.manifest.tensors), raw, state.manifest.entries, state.manifest.versions)

    def _moved(self, name: str, raw: RawTensor) -> RawTensor:
        """Say where a tensor of a nested file lies in the archive."""
        return replace(raw, source=self.source, offset=self.archive.records[name].offset + raw.offset)

    def _pickled(self, name: str, *, empty: bool = False, script: bool = False) -> Checkpoint | None:
        """Read a nested file of torch.save; ``script`` is one of torch's own objects. None where it may be empty."""
        record = self.archive.stored(name)
        self.known.add(name)
        if empty and not record.size:
            return None
        if name not in self._nested:
            section = self.source.section(record.offset, record.size, name)
            inner = _read_nested(section, self.limits, self.archive.spent)
            self._nested[name] = inner
            named = map(in_script, inner.globals) if script else inner.globals
            self.globals += [replace(found, member=f"{name}:{found.member}") for found in named]
            self.remarks += [
                Remark(remark.code, f"holds {name}, which {remark.reason}", remark.keys) for remark in inner.remarks
            ]
        return self._nested[name]

    def _bare_pickle(self, name: str) -> None:
        """Judge an object that torch.export.load hands to pickle.loads."""
        self.archive.stored(name)
        self.known.add(name)
        result = self.archive.unpickle(name)
        self.globals += [replace(found, member=name) for found in result.globals]
        self.remarks += embedded_pickles(name, result.embedded, self.limits)


def _of_program(spec: TensorSpec, payload: Payload) -> TensorSpec:
    """Tell parameters from buffers; the state dict of a program holds nothing else."""
    return replace(spec, kind="parameter" if payload.is_param else "buffer")


def _read_nested(source: ByteSource, limits: Limits, spent: Spent) -> Checkpoint:
    """Read a file of torch.save inside an archive, whatever it names. Archives do not nest any deeper."""
    kind = identify(source, limits)
    if kind == "torch-zip":
        found = read_zip_directory(source, limits)
        return read_saved(source, found, wanted="", limits=limits, allow_refused=True, spent=spent)
    if kind == "torch-legacy":
        from .legacy import read_torch_legacy as read
    elif kind == "torch-tar":
        from .tar import read_torch_tar as read
    elif kind == "pickle":
        from .plain_pickle import refuse_plain_pickle

        refuse_plain_pickle(source, limits)
    else:
        hint = "get the file again from its source; torch.export.save writes no such archive"
        raise FormatError(source.path, f"is a {kind} file, where torch.save's is needed", hint, code="CKPT002")
    return read(source, wanted="", limits=limits, allow_refused=True)
