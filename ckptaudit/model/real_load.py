"""A real load: torch's ``load_state_dict`` of real values into throw-away instances, and what they hold afterwards."""

from __future__ import annotations

import copy
import warnings
from collections import OrderedDict, defaultdict
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import nn
from torch.nn.parameter import is_lazy

from ..errors import CkptauditError, first_line
from ..formats import Limits, open_checkpoint
from ..manifest import Manifest
from ..mapping.execute import map_state
from ..mapping.mapping import KeyMapping
from ..outcome import LoadOutcome, key_of_error
from ..records import replace
from .describe import EXTRA_STATE, manifest_of, storage_of
from .read_state import State, read_state
from .twin import UndecidedError, real_copy
from .witness import Lines, RealLoad, Testimony

_TORCH_RAISED = "Error(s) in loading state_dict for "


def really_load(module: nn.Module, given: Any, limits: Limits, mappings: Sequence[Lines]) -> Testimony | str:
    """Load a checkpoint into copies of ``module`` and return what came of it, or a clause that says why nothing did.

    ``given`` is the path of a checkpoint or a state dict in memory; neither it nor the module is changed. It is loaded
    as it is, and again under ``mappings``, applied one after the other, where there are any. Every load gets a copy
    of its own and a state dict read anew: at the peak there are the module, one copy, and what of the file is in use.
    """
    with warnings.catch_warnings(), torch.random.fork_rng(devices=[]):
        warnings.simplefilter("ignore")  # they are those of the user's own load
        try:
            read, reader, note, misread = _reader(given, limits)
            chains: list[Sequence[Lines]] = [(), mappings] if mappings else [()]
            loads = [_Trial(module, partial(_mapped, read, chain)).run() for chain in chains]
        except UndecidedError as reason:
            return str(reason)
        except CkptauditError as error:
            return f"{error.subject} {error.reason}"
        except Exception as error:  # of the user's hooks, of torch for want of memory
            return first_line(error)
    return Testimony(reader, tuple(loads), note, misread)


def _reader(given: Any, limits: Limits) -> tuple[Callable[[], State], str, str, tuple[str, ...]]:
    """Return what reads the state dict anew each time, who that is, why not torch, and the keys it sees otherwise."""
    if isinstance(given, Mapping):
        return lambda: _cloned(given), "memory", "", ()
    checkpoint = open_checkpoint(given, limits=limits)
    state, reader, note = read_state(checkpoint)
    seen, said = manifest_of(state), checkpoint.manifest
    misread = tuple(key for key in dict.fromkeys((*said, *seen)) if _facts(seen, key) != _facts(said, key))
    return lambda: read_state(checkpoint)[0], reader, note, misread


def _facts(manifest: Manifest, key: str) -> Any:
    spec = manifest.tensors.get(key)
    return spec and (spec.shape, spec.dtype, spec.layout)


def _cloned(given: Mapping[str, Any]) -> State:
    """Copy a state dict for a load whose hooks may write to it."""
    result: Any = OrderedDict(given) if hasattr(given, "_metadata") else dict(given)
    for key, value in given.items():
        lazy = isinstance(value, torch.Tensor) and is_lazy(value)
        tensor = isinstance(value, torch.Tensor) and not lazy
        result[key] = value.detach().clone() if tensor else value if lazy else copy.deepcopy(value)
    if hasattr(given, "_metadata"):
        result._metadata = copy.deepcopy(given._metadata)
    return result  # type: ignore[no-any-return]


def _mapped(read: Callable[[], State], chain: Sequence[Lines]) -> State:
    state = read()
    for lines in chain:
        state = map_state(KeyMapping.parse(lines), state)
    return state


class _Trial:
    """One state dict, loaded under strict=False and under strict=True, each into a copy of the module."""

    def __init__(self, module: nn.Module, read: Callable[[], State]) -> None:
        self._read = read
        self._module = module
        self._reference = read()

    def run(self) -> RealLoad:
        """Load and look; the instances are gone afterwards."""
        strict_raised = ""
        try:
            real_copy(self._module).load_state_dict(self._read(), strict=True)
        except UndecidedError:
            raise
        except Exception as error:
            strict_raised = first_line(error)
        instance = real_copy(self._module)
        before = _Snapshot(instance, self._reference)
        outcome, raised = _load(instance, self._read())
        load = RealLoad(outcome, 0, raised, strict_raised)
        return load if raised else before.compared(instance, load)


def _load(instance: nn.Module, state: State) -> tuple[LoadOutcome, str]:
    """Load under strict=False; return torch's lists, and what it raised other than its own messages."""
    heard: list[Any] = []
    instance.register_load_state_dict_pre_hook(lambda *given: heard.append(given[-3:]))
    raised, missing, unexpected, errors = "", (), (), ()
    try:
        returned: Any = instance.load_state_dict(state, strict=False)
        missing, unexpected = returned.missing_keys, returned.unexpected_keys
    except AttributeError as error:
        raised = first_line(error)
    except Exception as error:
        if heard and str(error).startswith(_TORCH_RAISED):
            missing, unexpected, errors = heard[-1]
        else:
            raised = first_line(error)
    return LoadOutcome(tuple(missing), tuple(unexpected), tuple(errors), 0, "torch"), raised


class _Snapshot:
    """An instance before its load: which tensors it has, and the values of those that the state dict does not name."""

    def __init__(self, instance: nn.Module, reference: State) -> None:
        self._reference = reference
        state = instance.state_dict(keep_vars=True)
        self._tensors = {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
        self._extra = {key for key in state if key not in self._tensors or key.rpartition(".")[2] == EXTRA_STATE}
        own = {id(tensor) for tensor in (*instance.parameters(), *instance.buffers())}
        self._watched = {key for key, tensor in self._tensors.items() if id(tensor) in own}
        # What state_dict() makes on the way cannot be watched; a lazy tensor that receives another shows nothing.
        self._unseen = state.keys() - self._watched | {key for key in self._watched if is_lazy(self._tensors[key])}
        self._marks = {key: _mark(self._tensors[key]) for key in self._watched}
        self._named = {key for key in self._watched if self._fits(key)}
        self._initial = {
            key: tensor.detach().clone()
            for key, tensor in self._tensors.items()
            if key in self._watched - self._named and not is_lazy(tensor)
        }

    def _fits(self, key: str) -> bool:
        saved, tensor = self._reference.get(key), self._tensors[key]
        if not isinstance(saved, torch.Tensor) or is_lazy(saved):
            return False
        return is_lazy(tensor) or saved.shape == tensor.shape or (saved.shape == (1,) and tensor.shape == ())

    def compared(self, instance: nn.Module, load: RealLoad) -> RealLoad:
        """Complete what is said of a load by what the instance holds after it."""
        after = {k: v for k, v in instance.state_dict(keep_vars=True).items() if isinstance(v, torch.Tensor)}
        missing = set(load.outcome.missing_keys)
        refused = {key for key in map(key_of_error, load.outcome.errors) if key}
        received = {key for key in after if self._received(key, after[key])} - missing - refused
        surely = received & self._named | {key for key in self._extra if key in self._reference} - missing
        at_most = surely | received | {key for key in self._unseen if key in self._reference} - missing - refused
        outcome = replace(load.outcome, loaded=len(surely))
        shared = _shared(after)
        altered = [key for key in after if key in surely & self._named and not self._holds(key, after, shared)]
        kept = [key for key in self._initial if key in missing | refused and not set(shared[key]) & received]
        touched = [key for key in kept if not _same_bits(self._initial[key], after[key].detach())]
        return replace(load, outcome=outcome, at_most=len(at_most), altered=tuple(altered), touched=tuple(touched))

    def _received(self, key: str, tensor: torch.Tensor) -> bool:
        return key in self._marks and _mark(tensor) != self._marks[key]

    def _holds(self, key: str, after: Mapping[str, torch.Tensor], shared: Mapping[str, list[str]]) -> bool:
        """Tell whether a tensor holds the value saved for it, or for another name of the same memory."""
        names = [name for name in shared[key] if name in self._named]
        return any(_same_values(self._reference[name], after[name].detach()) for name in names)


def _mark(tensor: torch.Tensor) -> Any:
    """Return what every write to a tensor changes, whatever the values."""
    if is_lazy(tensor):
        return "lazy"
    storage = storage_of(tensor)
    return id(tensor), tensor._version, storage._cdata if storage is not None else None


def _shared(tensors: Mapping[str, torch.Tensor]) -> dict[str, list[str]]:
    """Return for each key all keys whose tensors lie in the same memory, itself among them."""
    groups: dict[Any, list[str]] = defaultdict(list)
    places = {}
    for key, tensor in tensors.items():
        storage = storage_of(tensor)
        places[key] = id(tensor) if storage is None or not storage.nbytes() else -storage._cdata
        groups[places[key]].append(key)
    return {key: groups[place] for key, place in places.items()}


def _same_values(saved: torch.Tensor, held: torch.Tensor) -> bool:
    """Tell whether ``held`` is ``saved`` after torch's own cast, bit for bit."""
    if is_lazy(held):
        return False
    saved = saved.detach().reshape(held.shape) if saved.shape != held.shape else saved.detach()
    if saved.dtype != held.dtype or saved.layout != held.layout or saved.is_quantized:
        saved = torch.empty_like(held).copy_(saved)
    return _same_bits(saved, held)


def _same_bits(one: torch.Tensor, other: torch.Tensor) -> bool:
    if one.shape != other.shape or one.dtype != other.dtype:
        return False
    if one.is_quantized:
        return bool(torch.equal(one, other))
    one, other = (t if t.layout is torch.strided else t.to_dense() for t in (one, other))
    flat = [t.resolve_conj().resolve_neg().contiguous().reshape(-1).view(torch.uint8) for t in (one, other)]
    return bool(torch.equal(*flat))
