"""Operations timed one by one, with a clock of our own."""

from __future__ import annotations

import pytest
import torch
from nets import make

import ckptaudit
from ckptaudit.training.bench.pretend import pretending
from ckptaudit.training.bench.replay import OperationTimer


class Clock:
    """A clock by which every call takes a second, and those of a slow stretch take a hundred."""

    def __init__(self, slow=range(0)):
        self.calls, self.now, self.slow = 0, 0.0, slow

    def __call__(self):
        self.calls += 1
        self.now += 100.0 if self.calls // 2 in self.slow else 1.0
        return self.now


@pytest.fixture(scope="module")
def operations():
    """The operations of a real network's step."""
    model, shape = make("net")
    subject = ckptaudit.freeze_variants(model, [shape], only=["frozen"], device="cpu")
    _, found = subject._trace(subject.variants[0])
    return found


def timed(operations, clock, monkeypatch):
    monkeypatch.setattr("ckptaudit.training.bench.replay._LONG", 1e9)  # the clock's seconds are long
    timer = OperationTimer(torch.device("cpu"), clock)
    before = clock.calls
    timer.measure(operations)
    return [timer.seconds(one) for one in operations], range(before // 2, clock.calls // 2)


def test_a_slow_stretch_makes_no_operation_slow(operations, monkeypatch):
    plain, calls = timed(operations, Clock(), monkeypatch)
    assert set(plain) == {1.0}
    fifth = len(calls) // 5
    stretch = range(calls.start + 2 * fifth, calls.start + 3 * fifth)
    disturbed, _ = timed(operations, Clock(stretch), monkeypatch)
    assert disturbed == plain


@pytest.mark.parametrize(("long", "times"), [(1e9, 5), (0.5, 3)])  # of which the first does not count
def test_each_kind_is_timed_once_a_pass_and_a_long_one_twice(operations, monkeypatch, long, times):
    monkeypatch.setattr("ckptaudit.training.bench.replay._LONG", long)
    clock = Clock()
    timer = OperationTimer(torch.device("cpu"), clock)
    before, known = clock.calls, set(timer._times)
    timer.measure([*operations, *operations])
    assert (clock.calls - before) // 2 == times * len({one.signature for one in operations} - known)


def test_what_needs_values_of_its_own_counts_as_nothing():
    with pretending():
        tensor = torch.zeros(4, 4)
    operation = _operation(torch.ops.aten.linalg_cholesky_ex.default, tensor)
    refused = _operation(torch.ops.aten.view.default, tensor, [3])
    timer = OperationTimer(torch.device("cpu"), Clock())
    timer.measure([operation, refused])
    assert timer.seconds(operation) == 1.0
    assert timer.seconds(refused) == 0.0
    assert timer.failed == {"aten.view.default"}


def _operation(func, tensor, *more):
    from ckptaudit.training.bench.trace import Operation, TensorShape

    shape = TensorShape(tuple(tensor.shape), tensor.stride(), tensor.dtype)
    return Operation(func, ((shape, *more), {}), "forward")
