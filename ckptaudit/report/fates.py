"""The table of ``ckptaudit frozen``: what became of the tensors, in groups named by as few patterns as name them."""

from __future__ import annotations

from ..rules.fates import Fates
from .values import grouped

_WORDS = {
    "held": "identical",
    "moved": "CHANGED",
    "trained": "changed",
    "unchanged": "identical",
    "not checked": "not compared",
    "inconclusive": "not compared",
}
_FEW = 4  # rows of one kind that are shown without -v


def fate_table(fates: Fates, every: bool) -> list[tuple[str, ...]]:
    """Return the table, headers first. Without ``every`` one, the first few rows of each kind."""
    kinds: dict[tuple[str, str], list[str]] = {}
    for one in fates.verdicts:
        meant = one.expected if one.expected == "frozen" or fates.names_trainable else ""
        kinds.setdefault((meant, _WORDS[one.verdict]), []).append(one.name)
    for word, apart in (("not in the base", fates.new), ("not in the tuned", fates.gone)):
        if apart:
            kinds["", word] = list(apart)
    rows = []
    for (expected, word), names in kinds.items():
        groups = grouped(names, fates.names)
        if len(groups) > _FEW and not every:
            groups = [*groups[: _FEW - 1], ("...", [name for _, members in groups[_FEW - 1 :] for name in members])]
        rows += [(pattern, f"{len(members):,}", expected, word) for pattern, members in groups]
    headers = ("key", "tensors", "meant to be", "is")
    used = [column for column in range(len(headers)) if any(row[column] for row in rows)]
    return [tuple(row[column] for column in used) for row in (headers, *rows)] if rows else []
