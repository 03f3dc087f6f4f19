"""Parameter groups: trainable parameters in none, in two, and groups that hold nothing or something else."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator

from ...rules import Contract, Finding
from ...rules import training_optimizers as rules
from ...words import plural
from ..names import NamedTensor
from .findings import Row, finding
from .setup import Setup


def check_missing(setup: Setup) -> Iterator[Finding]:
    """Find trainable parameters in no optimizer, and what the optimizers have in their place."""
    empty = [place.text for place in setup.groups() if not place.group["params"]]
    missing = _missing(setup)
    if missing and (stale := setup.stale()):
        held = f"they hold {plural(len(stale), 'tensor')} that the model does not have"
        rows = [(named.name, "in no optimizer", held) for named in missing]
        yield finding(setup, rules.STALE_PARAMETERS, rows, breaks=setup.if_declared)
    elif missing and empty:
        rows = [(named.name, "in no optimizer", f"{', '.join(empty)} is empty") for named in missing]
        yield finding(setup, rules.EMPTY_GROUP, rows, case="missing", breaks=setup.if_declared)
        return
    elif missing:
        rows = [(named.name, "requires_grad=True", "in no parameter group") for named in missing]
        yield finding(setup, rules.TRAINABLE_IN_NO_OPTIMIZER, rows, breaks=setup.if_declared)
    if empty:
        yield finding(setup, rules.EMPTY_GROUP, [(text, "empty", "it trains nothing") for text in empty])


def _missing(setup: Setup) -> list[NamedTensor]:
    if not setup.optimizers:
        return []
    places = setup.places
    return [
        named for named in setup.left(setup.moving) if named.tensor.requires_grad and id(named.tensor) not in places
    ]


def check_twice(setup: Setup) -> Iterator[Finding]:
    """Find parameters that are in a group twice, in two groups, or in two optimizers."""
    again: list[Row] = []
    across: list[Row] = []
    for key, places in setup.places.items():
        if len(places) == 1 or key not in setup.names:
            continue
        times = Counter(place.text for place in places)
        where = ", ".join(f"{text} {f'{n} times' if n > 1 else ''}".rstrip() for text, n in times.items())
        alone = len({id(place.optimizer) for place in places}) == 1
        row = (setup.names[key][0], f"in {len(places)} places", where)
        (again if alone else across).append(row)
    if again:
        yield finding(setup, rules.PARAMETER_HELD_TWICE, again, explains=False)
    if across:
        rule = rules.PARAMETER_HELD_TWICE
        yield finding(setup, rule, across, case="optimizers", breaks=Contract.resume, explains=False)
