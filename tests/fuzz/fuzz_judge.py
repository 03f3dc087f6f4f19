"""What has to hold for every input: how the reader answers, and that torch does not see another file than it does."""

from __future__ import annotations

import io
import json
import pickletools
from collections.abc import Callable, Sequence
from typing import Any
from zlib import crc32

from fuzz_engine import FindingError, error_outcome, no_address, skeleton
from fuzz_oracle import CrashedError, Oracle, Path, RefusedError, plain

from ckptaudit.dtypes import DTYPES
from ckptaudit.errors import CkptauditError, FormatError
from ckptaudit.formats import DEFAULT_LIMITS, Checkpoint, open_checkpoint
from ckptaudit.formats.base import ByteSource, Candidate
from ckptaudit.formats.candidates import join
from ckptaudit.formats.pickles.machine import run
from ckptaudit.formats.pickles.nodes import Call, PDict, PSet
from ckptaudit.formats.torch_files.zip_directory import read_zip_directory
from ckptaudit.inspection import inspect
from ckptaudit.manifest import Manifest, TensorSpec

# The first family: nothing but CkptauditError ----------------------------------------------------------------


def opened(path: str, *, allow_refused: bool) -> Checkpoint | str:
    """Open a file as users do; return the checkpoint, or the error in a few words."""
    try:
        checkpoint = open_checkpoint(path, allow_refused=allow_refused)
    except CkptauditError as error:
        return error_outcome(error)
    try:
        assert isinstance(checkpoint.chosen.manifest, Manifest)
    except CkptauditError as error:
        error_outcome(error)
    return checkpoint


def examine(path: str) -> str:
    """Open a file in each way there is; return the outcome in a few words."""
    strict, lenient = opened(path, allow_refused=False), opened(path, allow_refused=True)
    try:
        text = json.dumps(inspect(path).to_json())
    except CkptauditError as error:
        text = error_outcome(error)
    no_address(text)
    if isinstance(strict, Checkpoint) and not isinstance(lenient, Checkpoint):
        raise FindingError("refused because refused globals are allowed", str(lenient))
    outcomes = dict.fromkeys((_kinds(strict), _kinds(lenient)))
    return " | ".join(outcomes)


def _kinds(opened: Checkpoint | str) -> str:
    if isinstance(opened, str):
        return opened
    chosen = opened.choice
    end = f"chosen {chosen.kind}" if isinstance(chosen, Candidate) else f"{chosen.code} {skeleton(chosen.reason)}"
    kinds = sorted({candidate.kind for candidate in opened.candidates})
    layouts = sorted({spec.layout for c in opened.candidates for spec in c.manifest.tensors.values()})
    verdicts = sorted({found.verdict for found in opened.globals})
    remarks = sorted({remark.code for remark in opened.remarks})
    return f"{opened.format}: {'+'.join(kinds)} {'+'.join(layouts)} {'+'.join(verdicts)} {'+'.join(remarks)}; {end}"


def examine_pickle(path: str) -> str:
    """Run the pickle machine alone."""
    data = _read(path)
    try:
        result = run(data, subject="x", member="data.pkl", limits=DEFAULT_LIMITS, module_ids=bool(len(data) % 2))
    except CkptauditError as error:
        return error_outcome(error)
    no_address(repr([found.call for found in result.globals]))
    return f"read: {type(result.value).__name__} {'+'.join(sorted({found.verdict for found in result.globals}))}"


def examine_directory(path: str) -> str:
    """Read the directory of a zip alone."""
    try:
        records = read_zip_directory(ByteSource(path), DEFAULT_LIMITS)
    except CkptauditError as error:
        return error_outcome(error)
    return f"read: {min(len(records), 20)} records"


def examine_manifest(path: str) -> str:
    """Load a manifest; what is loaded has to survive being written and read again."""
    try:
        manifest = Manifest.load(path)
    except CkptauditError as error:
        return error_outcome(error)
    again = Manifest.from_json(json.loads(manifest.dumps()))
    if again.tensors != manifest.tensors or again.entries != manifest.entries:
        raise FindingError("a manifest changes when it is written")
    return f"read: {manifest.numel > 0} {len(manifest.ties())} {manifest.nbytes > 0} {manifest.versions is None}"


def _read(path: str) -> bytes:
    with open(path, "rb") as file:
        return file.read()


# The second family: torch reads the same, or raises for a reason that we word ---------------------------------

ORACLE = Oracle()


def compared(how: str, documented: Callable[[Checkpoint, str], str]) -> Callable[[str], str]:
    """Return a check: what the reader accepts, ``how`` loads as the manifest says, or ``documented`` knows why not."""

    def check(path: str) -> str:
        checkpoint = opened(path, allow_refused=False)
        if isinstance(checkpoint, str):
            return f"refused {checkpoint[:8]}"
        asked = "script" if checkpoint.format == "torchscript" else how
        try:
            tree = ORACLE.ask(asked, path)
        except CrashedError as crash:
            raise FindingError(f"a file that is accepted crashes {crash}", _kinds(checkpoint)) from None
        except RefusedError as refusal:
            known = documented(checkpoint, str(refusal))
            if known:
                return f"accepted; {asked} raises: {known}"
            raise FindingError(f"only {asked} refuses: {_last(str(refusal))}", str(refusal)) from None
        for candidate in checkpoint.candidates:
            _compare(checkpoint, candidate, tree)
        _all_candidates(checkpoint, tree)
        return f"the same: {_kinds(checkpoint)}"

    return check


def _last(message: str) -> str:
    """Return the telling part of torch's long messages."""
    head, _, rest = message.partition("WeightsUnpickler error: ")
    text = (rest or head).strip().partition("\n\nCheck the documentation")[0].partition("\nException raised from")[0]
    return skeleton(text.strip().replace("\n", " "))


Places = dict[tuple[str, str], Any]  # path and kind of what was loaded


def _compare(checkpoint: Checkpoint, candidate: Candidate, tree: Sequence[tuple[Path, str, Any]]) -> None:
    """Compare one candidate with what was loaded under its path."""
    places = {(joined, kind): facts for path, kind, facts in reversed(tree) if (joined := _joined(path)) is not None}
    made_up = any(None in path for path, _, _ in tree)  # names for keys that are no text
    if candidate.kind == "state_dict":
        mapping = places.get((candidate.path, "mapping"))
        if mapping is not None:
            _compare_keys(checkpoint, candidate, *mapping)
        elif "~" not in candidate.path and not made_up:
            raise FindingError("a state dict that is not loaded", candidate.path)
    memories: dict[str, int] = {}
    for key, spec in candidate.manifest.tensors.items():
        where = join(candidate.path, key)
        facts = places.get((where, "tensor"))
        if facts is not None:
            _compare_tensor(checkpoint, candidate, key, spec, facts)
            _compare_memory(checkpoint, where, spec, facts, memories)
        # Of a class whose code lists no parameters, every tensor of a script is described.
        elif not ("~" in where or where == "tensor" or made_up or checkpoint.format == "torchscript"):
            raise FindingError("a tensor that is not loaded", where)


def _compare_keys(
    checkpoint: Checkpoint, candidate: Candidate, keys: list[tuple[str, bool, bool]], versions: list[str] | None
) -> None:
    loaded = [key for key, _, is_tensor in keys if is_tensor]
    ours = list(candidate.manifest.tensors)
    if loaded != ours and (checkpoint.format != "safetensors" or sorted(loaded) != sorted(ours)):
        raise FindingError("other keys", f"{loaded} loaded, not {ours}")
    others = [key for key, _, is_tensor in keys if not is_tensor]
    told_apart = len({key for key, _, _ in keys}) == len(keys)  # 7 and "7" have one name, before it is marked
    if None not in others and told_apart and others != list(candidate.manifest.entries):
        raise FindingError("other entries", f"{others} loaded, not {list(candidate.manifest.entries)}")
    known = candidate.manifest.versions
    if (versions is None) != (known is None) or (versions and None not in versions and versions != list(known or ())):
        raise FindingError("other versions", f"{versions} loaded, not {known}")


def _compare_memory(
    checkpoint: Checkpoint, where: str, spec: TensorSpec, facts: dict[str, Any], memories: dict[str, int]
) -> None:
    # torch.jit.load reads a record anew for each tensor that names it.
    if spec.storage is not None and facts.get("memory") and checkpoint.format != "torchscript":
        start = facts["memory"] - _skipped(spec, facts)
        if memories.setdefault(spec.storage, start) != start:
            raise FindingError("memory that is not shared", f"{where} in {spec.storage}")


def _joined(path: Path) -> str | None:
    joined = ""
    for part in path:
        if part is None:
            return None
        joined = join(joined, part)
    return joined


def _skipped(spec: TensorSpec, facts: dict[str, Any]) -> int:
    """Return the bytes before the part of a storage that torch before 0.4 made a storage of its own."""
    return (spec.storage_offset - facts.get("storage_offset", 0)) * DTYPES[spec.dtype].itemsize


_COMPARED = ("shape", "dtype", "layout", "requires_grad", "kind", "stride", "conj", "neg", "storage_offset")


def _compare_tensor(
    checkpoint: Checkpoint, candidate: Candidate, key: str, spec: TensorSpec, facts: dict[str, Any]
) -> None:
    unsaid = {"requires_grad"} if spec.requires_grad is None else set()
    unsaid |= {"kind"} if checkpoint.format in ("torchscript", "safetensors") else set()
    unsaid |= {"stride"} if spec.stride is None else set()
    skipped = _skipped(spec, facts)
    unsaid |= {"storage_offset"} if checkpoint.format in ("torch-legacy", "torch-tar") and skipped > 0 else set()
    for name in _COMPARED:
        if name in facts and name not in unsaid and facts[name] != getattr(spec, name):
            raise FindingError(
                f"another {name}", f"{candidate.path} {key}: {facts[name]} loaded, not {getattr(spec, name)}"
            )
    raw = checkpoint.raw[candidate.path].get(key)
    if raw is None or "crc" not in facts:
        return
    data = b"".join(raw.storage_chunks())
    if checkpoint.format in ("torch-legacy", "torch-tar"):  # torch before 0.4 made a part of a storage one of its own
        data = data[skipped : skipped + facts["storage_nbytes"]]
    if facts["storage_nbytes"] != len(data):
        raise FindingError(
            "a storage of another size", f"{key}: {facts['storage_nbytes']} bytes loaded, not {raw.nbytes}"
        )
    if raw.byteorder == "little" and crc32(data) != facts["crc"]:
        raise FindingError("other bytes", f"{candidate.path} {key} at {raw.offset}")


def _all_candidates(checkpoint: Checkpoint, tree: Sequence[tuple[Path, str, Any]]) -> None:
    """Look for state dicts that were loaded and that the reader does not know."""
    within = [c.path for c in checkpoint.candidates if c.kind == "optimizer"]
    known = {c.path for c in checkpoint.candidates}
    for path, kind, mapping in tree:
        where = _joined(path)
        if kind != "mapping" or where is None or any(f"{where}.".startswith(f"{p}." if p else "") for p in within):
            continue
        named = [is_text for _, is_text, is_tensor in mapping[0] if is_tensor]
        if named and all(named) and where not in known and checkpoint.format != "torchscript":
            raise FindingError("a state dict that the reader does not see", where)


def documented(checkpoint: Checkpoint, message: str) -> str:
    """Return the reason for which torch may refuse what the reader accepts, or the empty string."""
    if any(found.verdict == "inert" for found in checkpoint.globals):
        return "CKPT004"
    return next((reason for part, reason in _REASONS.items() if part in message), "")


# What torch says: why the reader accepts it all the same. Values are never read, and these depend on them, or on the
# version of Python or torch.
_REASONS = {
    "Unsupported operand": "a pickle protocol other than 2",
    "Only Pickle protocol 2 is supported": "a pickle protocol other than 2",
    "codec can't decode byte": "text of Python 2 in another encoding than UTF-8",
    "UntypedStorage' has no attribute 'dtype'": "a dtype that torch writes to the old stream, and cannot read there",
    "is not satisfied": "indices of a sparse tensor",
    "size is inconsistent with indices": "indices of a sparse tensor",
    "found negative index": "indices of a sparse tensor",
    "uncoalesced COO tensor": "indices of a sparse tensor",
    "a leaf Variable that requires grad": "a dtype that torch writes with its gradient, and cannot read so",
    "Expected one of cpu, cuda": "a device that this torch does not know",
}


def compare_pickle(path: str) -> str:
    """Hold the pickle machine against torch's, and against pickletools on where a pickle ends."""
    data = _read(path)
    try:
        result = run(data, subject="x", member="data.pkl", limits=DEFAULT_LIMITS)
    except FormatError as error:
        return f"refused {error.code}"
    last = 0
    try:
        for _, _, position in pickletools.genops(io.BytesIO(data)):
            last = position or 0
    except Exception as error:  # genops raises whatever its readers raise
        raise FindingError(f"pickletools does not read it: {skeleton(str(error))[:60]}", repr(error)) from None
    if last + 1 != result.end:
        raise FindingError("pickletools sees another end", f"{last + 1}, not {result.end}")
    if not all(found.verdict == "allowed" for found in result.globals):
        return "names what torch refuses"
    try:
        end, value = ORACLE.ask("pickle", path)
    except CrashedError as crash:
        raise FindingError(f"a pickle that is accepted crashes {crash}") from None
    except RefusedError as refusal:
        return f"torch raises: {_last(str(refusal))[:80]}"
    if end != result.end:
        raise FindingError("torch sees another end", f"{end}, not {result.end}")
    _same(_plain_node(result.value), value)
    return "the same"


def _plain_node(node: object, depth: int = 40) -> object:
    """Write a node as the oracle writes a value; None where it is a call, whose result only torch knows."""
    if depth == 0:
        return "..."
    if isinstance(node, PDict):
        return ("dict", [(_plain_node(key, depth - 1), _plain_node(item, depth - 1)) for key, item in node.pairs])
    if isinstance(node, (list, tuple)):
        return (type(node).__name__, [_plain_node(item, depth - 1) for item in node])
    if isinstance(node, PSet):
        items = [_plain_node(item, depth - 1) for item in node.items]
        return ("set", None if None in items else sorted({repr(item) for item in items}))
    if isinstance(node, Call) and node.name == "collections.OrderedDict" and not node.args and not node.kwargs:
        pairs = node.pairs.pairs if node.pairs else []
        return ("OrderedDict", [(_plain_node(key, depth - 1), _plain_node(item, depth - 1)) for key, item in pairs])
    if node is None or isinstance(node, (bool, int, float, str, bytes, bytearray)):
        return plain(node)
    return None


def _same(ours: object, theirs: object) -> None:
    """Compare two values written as plain data; what we cannot know is None."""
    if ours is None or ours == theirs:
        return
    if isinstance(ours, tuple) and isinstance(theirs, tuple) and len(ours) == len(theirs):
        for one, other in zip(ours, theirs, strict=True):
            _same(one, other)
        return
    if isinstance(ours, list) and isinstance(theirs, list) and len(ours) == len(theirs):
        for one, other in zip(ours, theirs, strict=True):
            _same(one, other)
        return
    raise FindingError("another value", f"{ours!r:.300} where torch has {theirs!r:.300}")
