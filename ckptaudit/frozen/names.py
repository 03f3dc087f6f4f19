"""The tensors of a state dict under the names of the model itself, without those that wrappers add."""

from __future__ import annotations

from collections.abc import Iterable

# torch.compile, FSDP and checkpoint_wrapper keep the module that they wrap under these names.
_PRIVATE = frozenset({"_orig_mod", "_fsdp_wrapped_module", "_checkpoint_wrapped_module"})
# DataParallel, DistributedDataParallel and AveragedModel call it ``module``, as other modules may call something of
# their own; only where everything lies below it is it theirs. AveragedModel counts beside it.
_PUBLIC, _COUNTER = "module.", "n_averaged"


def canonical_names(keys: Iterable[str]) -> dict[str, str]:
    """Map canonical names to keys, in order. Where two keys would get one name, the later one keeps its own."""
    keys = list(keys)
    names = {key: ".".join(part for part in key.split(".") if part not in _PRIVATE) for key in keys}
    inner = [name for name in names.values() if name != _COUNTER]
    if inner and all(name.startswith(_PUBLIC) for name in inner):
        names = {key: name.removeprefix(_PUBLIC) for key, name in names.items()}
    found: dict[str, str] = {}
    for key, name in names.items():
        found[key if name in found else name] = key
    return found
