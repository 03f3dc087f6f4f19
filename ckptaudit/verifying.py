"""``ckptaudit map --verify``: load through a mapping, run both models on one input, compare what they put out.

Each model has a process of its own, as their code may have modules of one name. This file is both sides of it: what the
parent asks for, and ``serve``, which does it in the child.
"""

from __future__ import annotations

import json
from base64 import b64decode, b64encode
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, closing
from typing import TYPE_CHECKING, Any

from .errors import CkptauditError, ModelError, UsageError, first_line
from .formats import Limits
from .model.process import ChildProcess
from .model.serving import Answer, build_for, spec_of
from .model.spec import ModelSpec
from .records import dataclass
from .verification import OutputDifference, Verdict, Verification

if TYPE_CHECKING:
    import torch

    from .mapping.mapping import KeyMapping

_SERVER = "ckptaudit.verifying"


@dataclass(frozen=True)
class Trial:
    """What both models are given: shapes as texts (``1,3,224,224``, ``1,128:int64``), or a file of named tensors.

    Outputs are equal where they differ by at most ``atol``, and ``rtol`` of the reference's greatest value.
    """

    inputs: tuple[str, ...] = ()
    file: str = ""
    rtol: float = 1e-4
    atol: float = 0.0


def verify(
    model: ModelSpec,
    checkpoint: str,
    mapping: KeyMapping,
    limits: Limits,
    reference: ModelSpec | None = None,
    trial: Trial | None = None,
) -> Verification:
    """Load ``checkpoint`` into ``model`` under ``mapping``, in another process, and say what was loaded.

    With a ``reference``, the code that the checkpoint comes from, and a ``trial`` both are run in eval mode, and their
    outputs compared. Raises CkptauditError where a model cannot be built or run, or the checkpoint does not load into
    the reference.
    """
    with ExitStack() as stack:
        ours = stack.enter_context(closing(_start(model, checkpoint, mapping, limits, trial)))
        if reference is None or trial is None:
            return Verification.from_json(ours.receive())
        theirs = stack.enter_context(closing(_start(reference, checkpoint, None, limits, trial)))
        loaded = Verification.from_json(ours.receive())
        if loaded.verdict != "loaded":
            return loaded
        said = Verification.from_json(theirs.receive())
        if said.verdict != "loaded" or said.share < 1:
            reason = said.reason or f"takes {said.loaded:,} of its {said.tensors:,} tensors from it"
            hint = "--reference names the code that the checkpoint was saved from"
            raise UsageError(reference.text, f"is no reference for {checkpoint}: {reason}", hint)
        ours.send(theirs.receive()["outputs"])
        return Verification.from_json(ours.receive())


def _start(
    spec: ModelSpec, checkpoint: str, mapping: KeyMapping | None, limits: Limits, trial: Trial | None
) -> ChildProcess:
    bounds = {name: getattr(limits, name) for name in type(limits).__match_args__}
    rules = None if mapping is None else mapping.to_json()
    given = None if trial is None else [list(trial.inputs), trial.file, trial.rtol, trial.atol]
    return ChildProcess(spec, _SERVER, checkpoint, rules, bounds, given)


# In the child -----------------------------------------------------------------------------------------------------


def serve(requests: Iterable[str], answer: Answer) -> None:
    """Load, and say what was loaded; run, and send the outputs, or compare them with those that are sent."""
    lines = iter(requests)
    request = json.loads(next(lines))
    spec = spec_of(request)
    checkpoint, rules, bounds, given = request[6:]
    built = build_for(spec)
    module = _with_values(built)
    loaded = _load(module, checkpoint, rules, Limits(**bounds))
    answer(loaded.to_json())
    if given is None or loaded.verdict != "loaded":
        return
    trial = Trial(tuple(given[0]), *given[1:])
    outputs = _outputs(module, built.facts.name, trial)
    if rules is None:
        answer({"outputs": [_packed(one) for one in outputs]})
        return
    for line in lines:
        answer(_compared(loaded, outputs, [_unpacked(one) for one in json.loads(line)], trial).to_json())


def _with_values(built: Any) -> Any:
    import torch

    torch.manual_seed(0)
    try:
        return built.with_values()
    except CkptauditError:
        raise
    except (Exception, SystemExit) as error:
        raise ModelError(built.facts.name, f"cannot be built with values: {first_line(error)}") from error


def _load(module: Any, checkpoint: str, rules: list[str] | None, limits: Limits) -> Verification:
    from .loading.atomic import load
    from .loading.result import LoadError
    from .mapping.mapping import KeyMapping

    mapping = None if rules is None else KeyMapping.parse(rules)
    try:
        result = load(module, checkpoint, mapping=mapping, contract="partial", min_share=0.0, limits=limits)
    except LoadError as error:
        return Verification("not loaded", reason=error.reason)
    loaded, kept = len(result.loaded_keys), len(result.missing_keys) + len(result.expected_keys)
    return Verification("loaded", loaded, loaded + kept + len(result.mismatched_keys), result.share)


def _outputs(module: Any, name: str, trial: Trial) -> list[torch.Tensor]:
    import torch

    torch.manual_seed(0)
    arguments, named = _arguments(module, trial)
    module.eval()
    try:
        with torch.no_grad():
            result = module(*arguments, **named)
    except (Exception, SystemExit) as error:
        hint = "name the shape of each of its inputs: --input 1,3,224,224 or 1,128:int64"
        raise ModelError(name, f"does not run on that input: {first_line(error)}", hint) from error
    return list(_tensors(result))


def _arguments(module: Any, trial: Trial) -> tuple[list[torch.Tensor], dict[str, torch.Tensor]]:
    """Return what the model is called with: tensors of a file by their names, those called 0, 1, ... in their order."""
    import torch

    from .training.bench.step import InputSpec

    if not trial.file:
        floats = (tensor.dtype for tensor in module.parameters() if tensor.is_floating_point())
        dtype = next(floats, torch.float32)
        return [InputSpec.parse(text).make(dtype) for text in trial.inputs], {}
    from .formats import DEFAULT_LIMITS
    from .loading.contents import contents_of

    contents = contents_of(trial.file, None, DEFAULT_LIMITS)
    found = {key: contents.tensor(key) for key in contents.manifest.tensors}
    numbered = sorted((key for key in found if key.isdecimal()), key=int)
    return [found.pop(key) for key in numbered], found


def _tensors(result: Any) -> Iterator[torch.Tensor]:
    """Yield the tensors of an output, whatever holds them, in its order."""
    import torch
    from torch.utils._pytree import tree_leaves

    if hasattr(result, "to_tuple"):  # the outputs of transformers
        result = result.to_tuple()
    for leaf in tree_leaves(result):
        if isinstance(leaf, torch.Tensor):
            whole = torch.view_as_real(leaf.resolve_conj()) if leaf.is_complex() else leaf
            yield whole.detach().cpu().double().contiguous()


def _packed(tensor: torch.Tensor) -> list[Any]:
    from ctypes import string_at

    return [list(tensor.shape), b64encode(string_at(tensor.data_ptr(), tensor.numel() * 8)).decode()]


def _unpacked(packed: Sequence[Any]) -> torch.Tensor:
    import torch

    shape, text = packed
    data = bytearray(b64decode(text))
    return torch.frombuffer(data, dtype=torch.float64).reshape(shape) if data else torch.zeros(shape).double()


def _compared(
    loaded: Verification, ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], trial: Trial
) -> Verification:
    """Hold the outputs of the model against those of the reference."""
    outputs = tuple(_difference(a, b) for a, b in zip(ours, theirs, strict=False))
    verdict, reason = _verdict(outputs, ours, theirs, trial)
    return Verification(verdict, loaded.loaded, loaded.tensors, loaded.share, outputs, reason, trial.rtol, trial.atol)


def _verdict(
    outputs: Sequence[OutputDifference], ours: Sequence[torch.Tensor], theirs: Sequence[torch.Tensor], trial: Trial
) -> tuple[Verdict, str]:
    if len(ours) != len(theirs):
        return "differs", f"the model puts out {len(ours)} tensors, and the reference {len(theirs)}"
    if any(one.shape != one.reference_shape for one in outputs):
        return "differs", "the outputs have other shapes"
    if all(bool((one == one.flatten()[:1]).all()) for one in theirs):
        return "unclear", "the reference puts out one value for everything, or nothing, which tells nothing"
    for one in outputs:
        assert one.difference is not None
        assert one.scale is not None
        if not one.difference <= trial.atol + trial.rtol * one.scale:  # NaN is not below anything
            return "differs", "the outputs differ by more than rounding"
    return "equal", ""


def _difference(ours: torch.Tensor, theirs: torch.Tensor) -> OutputDifference:
    import torch

    shapes = tuple(ours.shape), tuple(theirs.shape)
    if ours.shape != theirs.shape:
        return OutputDifference(*shapes)
    if not ours.numel():
        return OutputDifference(*shapes, 0.0, 0.0, 1.0)
    cosine = torch.nn.functional.cosine_similarity(ours.flatten(), theirs.flatten(), dim=0)
    figures = (ours - theirs).abs().max(), theirs.abs().max(), cosine
    return OutputDifference(*shapes, *(float(one) for one in figures))
