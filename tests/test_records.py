"""The value classes behave like the standard library's on everything this package uses."""

from __future__ import annotations

import copy
import dataclasses
import inspect
from functools import cached_property

import pytest

from ckptaudit import records

KINDS = [dataclasses, records]


def make(kind):
    @kind.dataclass(frozen=True)
    class Point:
        x: int
        y: int = 2
        tags: dict[str, int] = kind.field(default_factory=dict)

        @cached_property
        def total(self):
            return self.x + self.y

    return Point


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
class TestBoth:
    def test_construction_and_defaults(self, kind):
        point = make(kind)
        assert (point(1).x, point(1).y, point(1, y=5).y, point(x=1).tags) == (1, 2, 5, {})
        assert point(1).tags is not point(1).tags
        with pytest.raises(TypeError):
            point()
        with pytest.raises(TypeError):
            point(1, z=3)

    def test_the_signature_is_known_before_there_is_an_instance(self, kind):
        parameters = inspect.signature(make(kind)).parameters
        assert list(parameters) == ["x", "y", "tags"]
        assert parameters["y"].default == 2

    def test_a_subclass_is_made_by_the_same_init(self, kind):
        base = make(kind)

        class Derived(base):
            def __init__(self, x):
                super().__init__(x, y=7)

        assert (Derived(1).y, base(1).y, Derived(2).x) == (7, 2, 2)

    def test_equality_and_repr(self, kind):
        point = make(kind)
        first, second = point(1), point(1)
        assert first.total == 3
        assert first == second
        assert first != point(2)
        assert first != (1, 2, {})
        assert repr(first).endswith("Point(x=1, y=2, tags={})")

    def test_hash(self, kind):
        @kind.dataclass(frozen=True)
        class Pair:
            a: int
            b: tuple

        assert hash(Pair(1, ())) == hash(Pair(1, ()))
        assert len({Pair(1, ()), Pair(1, ()), Pair(2, ())}) == 2

    def test_frozen_and_mutable(self, kind):
        point = make(kind)(1)
        for change in (lambda: setattr(point, "x", 3), lambda: delattr(point, "x"), lambda: setattr(point, "new", 1)):
            with pytest.raises(AttributeError):
                change()

        @kind.dataclass
        class Open:
            a: int = 1

        mutable = Open()
        mutable.a = 4
        assert mutable == Open(4)
        with pytest.raises(TypeError):
            hash(mutable)

    def test_identity(self, kind):
        @kind.dataclass(frozen=True, eq=False)
        class Thing:
            a: dict

        thing = Thing({})
        assert thing != Thing({})
        assert hash(thing) == hash(thing)

    def test_replace_and_post_init(self, kind):
        @kind.dataclass(frozen=True)
        class Even:
            value: int

            def __post_init__(self):
                if self.value % 2:
                    raise ValueError("odd")

        assert kind.replace(Even(2), value=4) == Even(4)
        with pytest.raises(ValueError, match="odd"):
            kind.replace(Even(2), value=3)

    def test_slots(self, kind):
        @kind.dataclass(frozen=True, slots=True)
        class Small:
            x: int
            tags: dict[str, int] = kind.field(default_factory=dict)
            y: int = 2

            @property
            def total(self):
                return self.x + self.y

        small = Small(1)
        assert (small.total, small.tags, small.tags is Small(1).tags) == (3, {}, False)
        assert small == Small(1)
        assert kind.replace(small, y=3) == Small(1, y=3) != small
        assert copy.deepcopy(small) == small
        assert repr(small).endswith("Small(x=1, tags={}, y=2)")
        assert not hasattr(small, "__dict__")
        for change in (lambda: setattr(small, "x", 3), lambda: delattr(small, "x")):
            with pytest.raises(AttributeError):
                change()

    def test_patterns_match_by_position(self, kind):
        match make(kind)(7):
            case object(x=7, y=2):
                pass
            case _:
                raise AssertionError


@pytest.mark.parametrize("kind", KINDS)
def test_a_field_may_have_any_name(kind):
    @kind.dataclass
    class Odd:
        record: int
        name: int = 2
        defaults: list = kind.field(default_factory=list)

    assert vars(Odd(1)) == {"record": 1, "name": 2, "defaults": []}
