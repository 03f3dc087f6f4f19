"""The collector waits inside of the block, and only there."""

from __future__ import annotations

import gc

import pytest

from ckptaudit.collector import CollectorPaused


def test_it_waits_and_goes_on() -> None:
    with CollectorPaused():
        assert not gc.isenabled()
        with CollectorPaused():
            pass
        assert not gc.isenabled()
    assert gc.isenabled()


def test_it_goes_on_after_an_error() -> None:
    with pytest.raises(ValueError, match="x"), CollectorPaused():
        raise ValueError("x")
    assert gc.isenabled()


def test_one_that_was_off_stays_off() -> None:
    gc.disable()
    try:
        with CollectorPaused():
            pass
        assert not gc.isenabled()
    finally:
        gc.enable()
