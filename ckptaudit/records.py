"""Value classes: the part of ``dataclasses`` this package uses, at a tenth of the start-up cost.

Importing dataclasses imports inspect, ast, dis and tokenize, and each class compiles five methods: together 20 ms of
a command that takes 50. Here one method is compiled per class, once it is needed, and the others are shared. Type
checkers see the standard library's own names.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dataclasses import dataclass as dataclass
    from dataclasses import field as field
    from dataclasses import replace as replace
else:

    class _Factory:
        """A default that is made anew for every instance."""

        def __init__(self, make):
            self.make = make

        def __repr__(self):
            return "<factory>"

    def field(*, default_factory):
        """Return the marker for a default that is made anew for every instance."""
        return _Factory(default_factory)

    def replace(record, /, **changes):
        """Return a copy of ``record`` with some fields changed."""
        for name in type(record).__match_args__:
            if name not in changes:
                changes[name] = getattr(record, name)
        return type(record)(**changes)

    def dataclass(cls=None, /, *, frozen=False, eq=True, slots=False):
        """Turn annotated names into fields, an ``__init__``, equality, hash and repr, as ``dataclasses.dataclass``.

        Fields of base classes are not inherited; ``__post_init__`` is called where there is one. ``slots`` takes a
        third of the memory, for what a file has a hundred thousand of.
        """
        if cls is None:
            return lambda later: dataclass(later, frozen=frozen, eq=eq, slots=slots)
        names = tuple(cls.__dict__.get("__annotations__", None) or getattr(cls, "__annotations__", {}))
        cls.__match_args__ = names
        defaults = {name: cls.__dict__[name] for name in names if name in cls.__dict__}
        if slots:
            cls = _with_slots(cls, names)
        for name in () if slots else names:
            if isinstance(defaults.get(name), _Factory):
                delattr(cls, name)
        cls.__init__ = _Initialiser(cls, names, defaults, slots)
        cls.__repr__ = _repr
        if eq:
            cls.__eq__ = _eq
            cls.__hash__ = _hash if frozen else None
        if frozen:
            cls.__setattr__ = cls.__delattr__ = _refuse
        return cls

    def _with_slots(cls, names):
        """Make the class once more, as slots must be known when it is made."""
        body = {name: value for name, value in vars(cls).items() if name not in (*names, "__dict__", "__weakref__")}
        body |= {"__slots__": names, "__qualname__": cls.__qualname__, "__reduce__": _reduce}
        return type(cls)(cls.__name__, cls.__bases__, body)

    class _Initialiser:
        """An ``__init__`` that is compiled when it is first looked up: most classes of a command make no instance."""

        def __init__(self, cls, names, defaults, slots):
            self._class, self._given = cls, (names, defaults, slots)

        def __get__(self, instance, owner):
            """Put the compiled one in this place, and give it out."""
            self._class.__init__ = made = _compiled(self._class, *self._given)
            return made if instance is None else made.__get__(instance, owner)

    def _compiled(cls, names, defaults, slots):
        """Compile ``__init__``: it writes to the slots, or to the dict that a frozen class still has.

        Its own names are ones that no field has.
        """
        arguments, lines = [], [] if slots else ["_dict = _self.__dict__"]
        scope = {"_defaults": defaults}
        for name in names:
            arguments.append(f"{name}=_defaults[{name!r}]" if name in defaults else name)
            value = name
            if isinstance(defaults.get(name), _Factory):
                value = f"_defaults[{name!r}].make() if {name} is _defaults[{name!r}] else {name}"
            if slots:
                scope[f"_set_{name}"] = getattr(cls, name).__set__
            lines.append(f"_set_{name}(_self, {value})" if slots else f"_dict[{name!r}] = {value}")
        if hasattr(cls, "__post_init__"):
            lines.append("_self.__post_init__()")
        exec(f"def __init__(_self, {', '.join(arguments)}):\n " + "\n ".join(lines), scope)
        return scope["__init__"]

    def _reduce(self):
        return type(self), _values(self)

    def _values(record):
        return tuple(getattr(record, name) for name in record.__match_args__)

    def _eq(self, other):
        if type(other) is not type(self):
            return NotImplemented
        return _values(self) == _values(other)

    def _hash(self):
        return hash(_values(self))

    def _repr(self):
        fields = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__match_args__)
        return f"{type(self).__qualname__}({fields})"

    def _refuse(self, name, *_value):
        raise AttributeError(f"{type(self).__name__} is frozen: {name} cannot be set")
