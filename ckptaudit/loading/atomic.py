"""``ckptaudit.load``: find out what a load would do, check that it may, do it, and undo it if anything fails."""

from __future__ import annotations

import os
from collections import OrderedDict
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Literal

import torch
from torch import nn

from ..collector import CollectorPaused
from ..errors import CkptauditError, UsageError
from ..formats import DEFAULT_LIMITS, Limits
from ..model.describe import named_tensors
from ..words import listed, shell_word
from .contents import Contents, contents_of
from .forecast import Forecast, forecast
from .places import Places
from .result import LoadError, LoadResult
from .stored import Later, StoredTensor
from .undo import IN_MEMORY, Shield, Undo
from .values import check_values

if TYPE_CHECKING:
    from ..formats.base import Checkpoint
    from ..mapping.mapping import KeyMapping

CONTRACTS = ("partial", "strict", "exact")


def load(  # noqa: PLR0913  (each is a question that a load has to answer)
    model: nn.Module,
    checkpoint: str | os.PathLike[str] | Checkpoint | Any,
    *,
    mapping: KeyMapping | str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None = None,
    contract: Literal["partial", "strict", "exact"] = "strict",
    min_share: float | None = None,
    map_location: Any = "cpu",
    dtype: Literal["model", "checkpoint"] = "model",
    assign: bool = False,
    limits: Limits = DEFAULT_LIMITS,
) -> LoadResult:
    """Load a checkpoint into a model, whole or not at all.

    ``checkpoint`` is a path (``FILE#inner`` too), an open Checkpoint or a state dict; ``mapping`` is applied first.
    What torch would say is found out on a twin of the model; only then is anything loaded, by the model's own
    ``load_state_dict``, hooks and all. Where anything fails or is interrupted, the model is bit for bit what it was.

    ``contract`` says what has to hold. ``strict``: no key is missing, unexpected or of another shape, but for what the
    mapping expects to be missing. ``exact``: no dtype differs either. ``partial``: what fits is loaded, and it has to
    be at least ``min_share`` (0 to 1) of the model's elements. A cast is refused where a value would become infinite or
    wrap around, or the kind of number changes; so are different values for tensors that the model has tied.

    ``map_location`` is that of ``torch.load``. With ``assign`` the model takes the tensors themselves, on that device,
    and keeps its ties and ``requires_grad``; an optimizer made before holds the old ones. ``dtype="checkpoint"``, which
    needs ``assign``, lets the model take on the checkpoint's dtypes.

    Until the load is done the old values are kept: in memory up to 96 MiB, and beyond in a temporary file. A larger
    model without load hooks of its own needs neither: it is overwritten last, by bytes that have been read before.
    Raises LoadError, whose ``result`` says what would have been loaded, and CkptauditError.
    """
    places = _check_arguments(model, contract, min_share, map_location, dtype, assign)
    given = _mapping(mapping)
    contents = contents_of(checkpoint, given, limits)
    expected = _forecast(model, contents, contract, min_share)
    _check_device(model, contents, expected, assign)
    for key in expected.keys:
        contents.check(key)
    check_values(model, contents, expected, cast=dtype == "model", exact=contract == "exact")

    with CollectorPaused():
        state = _state(contents, expected, places, assign=assign, own_dtype=dtype == "model")
    later = Later()
    put_off = _put_off(state, expected, later) if not assign and expected.model.nbytes > IN_MEMORY else set()

    def act() -> LoadResult:
        returned = model.load_state_dict(state, strict=False, **({"assign": True} if assign else {}))
        said = expected if expected.decided else expected.corrected(contents, returned)
        _check_outcome(model, contents, said, returned)
        _check_contract(model, contents, said, contract, min_share)
        later.prepare()
        contents.check_unchanged()
        return said.settled(model)

    return _commit(model, contents, expected, act, later, put_off)


def _forecast(model: nn.Module, contents: Contents, contract: str, min_share: float | None) -> Forecast:
    """Forecast the load; hold the mapping's own expectations and the contract against it, as far as it is decided."""
    if contents.mapped is not None:
        contents.mapped.check()
    expected = forecast(model, contents, partial=contract == "partial")
    if expected.decided:
        if contents.mapped is not None:
            contents.mapped.settled(expected.missing).check()
        _check_contract(model, contents, expected, contract, min_share)
    return expected


def _put_off(state: dict[str, Any], expected: Forecast, later: Later) -> set[int]:
    """Put off the copies that are nothing but that; return the ids of the tensors that they go to."""
    targets = set()
    for number, keys in expected.only_copied().items():
        values = [state[key] for key in keys]
        if all(isinstance(value, StoredTensor) and value.fits(expected.targets[keys[0]]) for value in values):
            targets.add(number)
            for value in values:
                value.later = later
    return targets


def _check_arguments(
    model: Any, contract: str, min_share: float | None, map_location: Any, dtype: str, assign: bool
) -> Places:
    if not isinstance(model, nn.Module):
        raise UsageError(type(model).__name__, "is no nn.Module to load into", "build the model first")
    if contract not in CONTRACTS:
        raise UsageError(str(contract), f"is no contract of a load; choose one of {', '.join(CONTRACTS)}")
    if dtype not in ("model", "checkpoint"):
        raise UsageError(f"dtype={dtype!r}", "is neither 'model' nor 'checkpoint'")
    if dtype == "checkpoint" and not assign:
        raise UsageError("dtype='checkpoint'", "needs assign=True: a tensor that is copied into keeps its dtype")
    if contract == "partial" and min_share is None:
        hint = "declare the share of the model that has to be loaded: min_share=0.9"
        raise UsageError("contract='partial'", "does not say how much is enough", hint)
    if min_share is not None and not 0 <= min_share <= 1:
        raise UsageError(f"min_share={min_share}", "is no share between 0 and 1")
    return Places(map_location)


def _mapping(given: Any) -> KeyMapping | None:
    if not given:
        return None
    from ..mapping.mapping import KeyMapping

    return KeyMapping.of(given)


def _check_contract(
    model: nn.Module, contents: Contents, expected: Forecast, contract: str, min_share: float | None
) -> None:
    """Raise LoadError where the load would break the contract."""
    result, name = expected.result, type(model).__name__
    hint = f"see every cause and its fix: ckptaudit diff MODEL {shell_word(contents.name)}"
    if contract == "partial":
        assert min_share is not None
        if expected.errors:
            raise LoadError(contents.name, f"does not load into {name}: {expected.errors[0]}", hint, result=result)
        if result.share < min_share or not result.loaded_keys:
            reason = f"would load {result.share:.1%} of {name}, less than {min_share:.1%}"
            if not result.loaded_keys:
                reason = f"loads nothing into {name}"
            raise LoadError(contents.name, reason, hint, result=result)
        return
    faults = []
    for what, keys in (
        ("missing", result.missing_keys),
        ("unexpected", result.unexpected_keys),
        ("of another shape", tuple(result.mismatched_keys)),
    ):
        if keys:
            faults.append(f"{len(keys):,} {what} ({listed(keys)})")
    faults += [f"torch says: {' '.join(text.split())}" for text in expected.errors if not result.mismatched_keys]
    if faults:
        raise LoadError(contents.name, f"does not load strictly into {name}: {'; '.join(faults)}", hint, result=result)


def _check_device(model: nn.Module, contents: Contents, expected: Forecast, assign: bool) -> None:
    """Raise LoadError where copies would be lost: nothing can be copied into a tensor on the meta device."""
    if assign:
        return
    held = set(expected.result.loaded_keys)
    lost = [key for key, tensor, _, _ in named_tensors(model) if tensor.is_meta and key in held]
    if lost:
        reason = f"cannot be copied into {listed(tuple(lost))} of {type(model).__name__}, which is on the meta device"
        raise LoadError(contents.name, reason, "let the model take the tensors: assign=True", result=expected.result)


def _commit(
    model: nn.Module,
    contents: Contents,
    expected: Forecast,
    act: Callable[[], LoadResult],
    later: Later,
    put_off: set[int],
) -> LoadResult:
    """Act; on any fault, an interruption too, make the model what it was and raise. Then copy what was put off."""
    name = type(model).__name__
    try:
        undo = Undo(model, without=put_off)
    except OSError as error:
        reason = f"is not changed: its values cannot be kept until a load is done: {error.strerror}"
        raise LoadError(name, reason, "name a folder with room for them: TMPDIR=/path") from None
    shield = Shield()
    try:
        result = act()
        shield.raise_()
    except BaseException as error:
        with shield:
            undo.restore()
            undo.close()
        if isinstance(error, CkptauditError) or not isinstance(error, Exception):
            raise
        what = " ".join(str(error).split()[:40]) or type(error).__name__
        reason = f"does not load into {name}, which is as it was: {type(error).__name__}: {what}"
        raise LoadError(contents.name, reason, result=expected.result) from error
    with shield:
        later.copy()
        undo.close()
    return result


def _state(
    contents: Contents, expected: Forecast, places: Places, *, assign: bool, own_dtype: bool
) -> OrderedDict[str, Any]:
    """Return the state dict for torch: what hooks of the model look at, and what it takes over, is in memory."""
    metadata = contents.metadata()
    state: Any = OrderedDict() if metadata is not None else {}
    assigned: dict[int, torch.Tensor] = {}
    for key in expected.keys:
        value = contents.value(key)
        target = expected.targets.get(key)
        if isinstance(value, torch.Tensor) and not assign:
            value = _to_copy(value, contents, key, places)
            state[key] = value if expected.reads_late(key) else _made(value)
        elif isinstance(value, torch.Tensor):
            taken = assigned.get(id(target))
            if taken is None:
                taken = places.place(_made(value), contents.location(key))
                taken = _to_assign(taken, value, target, own_dtype)
                if target is not None:
                    assigned[id(target)] = taken
            state[key] = taken
        else:
            state[key] = value
    if metadata is not None:
        state._metadata = metadata
    result: OrderedDict[str, Any] = state
    return result


def _to_copy(value: torch.Tensor, contents: Contents, key: str, places: Places) -> torch.Tensor:
    """Return a tensor to copy from, which is read, and moved to its place, when it is copied."""
    location = contents.location(key)
    if places.stays(location):
        return value
    spec = contents.manifest.tensors[key]
    return StoredTensor.of(spec.shape, spec.dtype, lambda: places.place(_made(value), location), None)


def _made(value: torch.Tensor) -> torch.Tensor:
    return value.make() if isinstance(value, StoredTensor) else value


def _to_assign(placed: torch.Tensor, given: torch.Tensor, target: torch.Tensor | None, own_dtype: bool) -> torch.Tensor:
    """Return a tensor for the model to take: neither the caller's memory nor, unless asked for, another dtype."""
    if own_dtype and target is not None:
        placed = placed.to(target.dtype)
    if not isinstance(given, StoredTensor):
        placed = placed.clone()
    if isinstance(target, nn.Parameter):
        return nn.Parameter(placed, requires_grad=target.requires_grad)
    return placed


def _check_outcome(model: nn.Module, contents: Contents, expected: Forecast, returned: Any) -> None:
    """Raise LoadError where the load did something else than its trial."""
    missing = getattr(returned, "missing_keys", None)
    unexpected = getattr(returned, "unexpected_keys", None)
    if missing is None or unexpected is None:
        return  # a load_state_dict of the model's own, whose trial said what it does
    if (sorted(missing), sorted(unexpected)) != (sorted(expected.missing), sorted(expected.unexpected)):
        reason = f"did not load into {type(model).__name__} as its trial had it; the model is as it was"
        raise LoadError(contents.name, reason, "compare the two: ckptaudit diff --witness", result=expected.result)
