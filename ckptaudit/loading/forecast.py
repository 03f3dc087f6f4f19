"""What a load will do, found out on a twin of the model before anything is loaded."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

import torch
from torch import nn

from ..compare.align import Alignment, align
from ..compare.predict import predict
from ..manifest import Manifest, TensorSpec
from ..model.describe import manifest_of, named_tensors
from ..model.trial import try_load
from ..records import dataclass, replace
from .contents import Contents
from .result import LoadResult


@dataclass(frozen=True)
class Forecast:
    """The result that a load of ``keys`` will have, and torch's words on it.

    ``errors`` are what torch would raise. ``decided`` is False where torch cannot say without the values, and the lists
    are predicted from names and shapes. ``targets`` are the model's tensors by key, and ``eager`` begins the keys
    that load hooks may look at; ``own_code`` tells whether any code but torch's own has a part in
    the load. ``model`` describes the model before it.
    """

    result: LoadResult
    keys: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    errors: tuple[str, ...]
    decided: bool
    model: Manifest
    targets: dict[str, torch.Tensor]
    eager: tuple[str, ...]
    own_code: bool

    def reads_late(self, key: str) -> bool:
        """Tell whether the tensor is only copied into its place, so that it may be read straight into it."""
        target = self.targets.get(key)
        return not key.startswith(self.eager) and (target is None or _is_ordinary(target))

    def only_copied(self) -> dict[int, list[str]]:
        """Return the id and the keys of each tensor of the model to which nothing is done in a load but copies.

        None, where code that is not torch's own runs in a load; and none that shares memory with another one.
        """
        if self.own_code:
            return {}
        names: dict[int, list[str]] = {}
        for key, tensor in self.targets.items():
            if key in self.model.tensors:
                names.setdefault(id(tensor), []).append(key)
        sharing = Counter(self.model.tensors[keys[0]].storage for keys in names.values())
        alone = {n: keys for n, keys in names.items() if sharing[self.model.tensors[keys[0]].storage] == 1}
        loaded = {key for key in self.keys if self.reads_late(key)}
        return {number: keys for number, keys in alone.items() if loaded.issuperset(keys)}

    def ties(self) -> Iterable[list[str]]:
        """Yield the loaded keys that are one tensor of the model, where they are several."""
        groups: dict[int, list[str]] = {}
        for key in self.keys:
            if key in self.targets:
                groups.setdefault(id(self.targets[key]), []).append(key)
        return (names for names in groups.values() if len(names) > 1)

    def corrected(self, contents: Contents, returned: object) -> Forecast:
        """Return the forecast with what torch said of the load itself in place of what was predicted."""
        missing = tuple(getattr(returned, "missing_keys", self.missing))
        unexpected = tuple(getattr(returned, "unexpected_keys", self.unexpected))
        left_out = tuple(key for key in self.result.unexpected_keys if key not in self.unexpected)
        alignment = align(contents.manifest.select(self.keys), self.model)
        first = align(contents.manifest, self.model)
        result = _result(contents, first, alignment, missing, (*left_out, *unexpected))
        return replace(self, missing=missing, unexpected=unexpected, errors=(), decided=True, result=result)

    def settled(self, model: nn.Module) -> LoadResult:
        """Return the result, once the load is done."""
        on_meta = tuple(key for key, tensor, _, _ in named_tensors(model) if tensor.is_meta)
        return replace(self.result, on_meta=on_meta)


def forecast(model: nn.Module, contents: Contents, *, partial: bool) -> Forecast:
    """Try the load on a twin. With ``partial`` only what has a place and fits is loaded."""
    wanted = manifest_of(model)
    given = contents.manifest
    first = align(given, wanted)
    left_out: set[str] = set()
    outcome = try_load(model, given)
    if partial and not isinstance(outcome, str):
        left_out = {*outcome.unexpected_keys, *first.mismatched_keys, *first.non_tensor_keys}
    elif partial:
        left_out = {*first.unexpected_keys, *first.mismatched_keys, *first.non_tensor_keys}
    unexpected = tuple(key for key in given.all_keys if key in left_out and key not in first.model)
    if left_out:
        given = given.select(key for key in given.all_keys if key not in left_out)
        outcome = try_load(model, given)
    alignment = align(given, wanted)
    decided = not isinstance(outcome, str)
    said = predict(alignment) if isinstance(outcome, str) else outcome
    result = _result(contents, first, alignment, said.missing_keys, (*unexpected, *said.unexpected_keys))
    return Forecast(
        result=result,
        keys=given.all_keys,
        missing=said.missing_keys,
        unexpected=said.unexpected_keys,
        errors=said.errors,
        decided=decided,
        model=wanted,
        targets={key: tensor for key, tensor, _, persistent in named_tensors(model) if persistent},
        eager=tuple(_eager(model)),
        own_code=any(map(_runs_own_code, model.modules())),
    )


def _result(
    contents: Contents, first: Alignment, alignment: Alignment, missing: tuple[str, ...], unexpected: tuple[str, ...]
) -> LoadResult:
    wanted = alignment.model
    expects = contents.mapped.expects if contents.mapped else lambda _: False
    misfits = {key: (saved.shape, spec.shape) for key, saved, spec in first.pairs(first.mismatched_keys)}
    lacking = {*missing, *misfits}
    by_hooks = {key for key in alignment.missing_keys if key not in lacking and not key.endswith("num_batches_tracked")}
    loaded = tuple(
        key for key in wanted.all_keys if key not in lacking and (key in alignment.checkpoint or key in by_hooks)
    )
    return LoadResult(
        loaded_keys=loaded,
        missing_keys=tuple(key for key in missing if key not in misfits and not expects(key)),
        unexpected_keys=unexpected,
        mismatched_keys=misfits,
        expected_keys=tuple(key for key in missing if expects(key)),
        casts={
            key: (saved.dtype, spec.dtype)
            for key, saved, spec in alignment.pairs(alignment.matched_keys)
            if saved.dtype != spec.dtype and spec.layout != "uninitialized"
        },
        loaded_elements=_elements(wanted, loaded),
        elements=_elements(wanted, wanted.all_keys),
    )


def _elements(manifest: Manifest, keys: Iterable[str]) -> int:
    """Count elements; those of one view once."""

    def view(key: str, spec: TensorSpec) -> object:
        return key if spec.storage is None else (spec.storage, spec.storage_offset, spec.shape, spec.stride)

    specs = {key: manifest.tensors[key] for key in keys if key in manifest.tensors}
    return sum({view(key, spec): spec.numel for key, spec in specs.items()}.values())


def _eager(model: nn.Module) -> Iterable[str]:
    """Yield how the keys begin that hooks, or a module's own way to load, see before they are copied."""
    for path, module in model.named_modules(remove_duplicate=False):
        own = (module._load_from_state_dict, module.load_state_dict)
        if module._load_state_dict_pre_hooks or not all(map(_is_torchs, own)):
            yield f"{path}." if path else ""


def _runs_own_code(module: nn.Module) -> bool:
    methods = (module._load_from_state_dict, module.load_state_dict, module.set_extra_state)
    hooks = (*module._load_state_dict_pre_hooks.values(), *module._load_state_dict_post_hooks.values())
    return not all(map(_is_torchs, (*methods, *(getattr(hook, "hook", hook) for hook in hooks))))


def _is_torchs(code: object) -> bool:
    return (getattr(code, "__module__", None) or "").startswith("torch.")


def _is_ordinary(tensor: torch.Tensor) -> bool:
    return type(tensor).__torch_dispatch__ is torch.Tensor.__torch_dispatch__
