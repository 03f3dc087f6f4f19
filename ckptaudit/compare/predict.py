"""Predict what ``load_state_dict`` does, from two manifests and without torch.

Where a live model is at hand torch itself is asked (``ckptaudit.model``); this prediction serves checkpoints
and committed manifests, and the tests hold it against torch.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..outcome import LoadOutcome
from .align import Alignment

_COUNTER = ".num_batches_tracked"


def predict(alignment: Alignment) -> LoadOutcome:
    """Return what torch would say to loading ``alignment.checkpoint`` into ``alignment.model``."""
    errors = [
        f"size mismatch for {key}: checkpoint {saved.shape}, model {wanted.shape}"
        for key, saved, wanted in alignment.pairs(alignment.mismatched_keys)
    ]
    errors += [
        f'While copying the parameter named "{key}", expected torch.Tensor, the checkpoint holds {kind}'
        for key, kind in ((key, alignment.checkpoint.entries[key]) for key in alignment.non_tensor_keys)
    ]
    return LoadOutcome(
        missing_keys=tuple(key for key in alignment.missing_keys if not counter_is_forgiven(alignment, key)),
        unexpected_keys=(*alignment.unexpected_keys, *_counters_put_in(alignment)),
        errors=tuple(errors),
        loaded=len(alignment.matched_keys),
        judge="prediction",
    )


def counter_is_forgiven(alignment: Alignment, key: str) -> bool:
    """Tell whether torch keeps the model's own ``num_batches_tracked`` where the checkpoint has none.

    Normalisation layers of version 2 do so for state dicts whose ``_metadata`` names no version for them or
    a version below 2 (torch/nn/modules/batchnorm.py, ``_NormBase._load_from_state_dict``).
    """
    return _is_counter(alignment, key) and alignment.model.tensors[key].kind != "parameter"


def _counters_put_in(alignment: Alignment) -> Iterator[str]:
    """Yield the counters that these layers put into the state dict although they are not persistent there.

    They then count as unexpected.
    """
    for key in alignment.model.non_persistent:
        saved = key in alignment.checkpoint.tensors or key in alignment.checkpoint.entries
        if not saved and _is_counter(alignment, key):
            yield key


def _is_counter(alignment: Alignment, key: str) -> bool:
    """Tell a counter of a layer that knows it from a checkpoint of before there was one."""
    if not f".{key}".endswith(_COUNTER):
        return False
    module = alignment.model.module_of(key)
    wanted = (alignment.model.versions or {}).get(module)
    saved = (alignment.checkpoint.versions or {}).get(module)
    return wanted is not None and wanted >= 2 and (saved is None or saved < 2)
