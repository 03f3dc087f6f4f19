"""Tensor rules: an operation and the names of what it takes and makes; their syntax, and which keys they meet."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..dtypes import DTYPES
from ..errors import UsageError
from ..manifest import TensorSpec
from ..records import dataclass
from ..words import did_you_mean
from .ops import OPS, Cast, Misfit, Op, check_usable, shape_text
from .ops.chain import read_steps, write_steps
from .pattern import EXAMPLE, Binding, Template, check_sides, cut, masked, strip
from .rules import Rule

if TYPE_CHECKING:
    from .rules import Phase

Names = tuple[str, ...]


@dataclass(frozen=True)
class Step:
    """One operation of a rule on tensors of given names, under the names that the rules over keys have made."""

    rule: TensorRule
    op: Op
    sources: Names
    targets: Names
    specs: tuple[TensorSpec, ...]


Taken = Mapping[str, Sequence[Step]]


@dataclass(frozen=True)
class TensorRule(Rule):
    """``OP FROM, ... -> TO, ... name=value ...``; without an arrow the tensor keeps its name.

    ``{e}`` on one side alone stands for all tensors from 0 up. The rule passes over tensors whose shape is not
    ``when``, where that is set.
    """

    op: Op
    sources: Names
    targets: Names = ()
    when: tuple[int, ...] | None = None

    def __post_init__(self) -> None:
        text = str(self)
        for name in (*self.sources, *self.targets):
            if not _is_name(name):
                raise UsageError(text, f"has {name!r} for a name; escape blanks, commas and = in it", _hint(self.op))
        check_sides(text, self._from, self._to, self._only(self._to, self._from))
        self._check_arity(text)

    def _check_arity(self, text: str) -> None:
        gathered, scattered = self._only(self._from, self._to), self._only(self._to, self._from)
        takes = "several tensors: list them, or write {e} for all" if self.op.joins else "one tensor"
        makes = "several tensors: list them, or write {e} for all" if self.op.splits else "one tensor"
        several = len(self._from) > 1 or bool(gathered)
        if several != self.op.joins or len(gathered) > 1 or (gathered and len(self._from) > 1):
            raise UsageError(text, f"takes {takes}", _hint(self.op))
        if any((t.stars, set(t.indices)) != (self._from[0].stars, set(self._from[0].indices)) for t in self._from):
            raise UsageError(text, "has sources that do not use the same * and {i}", _hint(self.op))
        several = len(self._to) > 1 or bool(scattered)
        if several != self.op.splits or len(scattered) > 1 or (scattered and len(self._to) > 1):
            raise UsageError(text, f"makes {makes}", _hint(self.op))
        if self.phase == "cast" and self.targets:
            raise UsageError(text, "renames, and a cast does not", "write a rename beside it")

    @staticmethod
    def _only(these: Sequence[Template], others: Sequence[Template]) -> str:
        """Return the names of the indices that one side has alone."""
        known = {name for template in others for name in template.indices}
        return "".join(dict.fromkeys(name for t in these for name in t.indices if name not in known))

    @cached_property
    def _from(self) -> tuple[Template, ...]:
        return tuple(map(Template, self.sources))

    @cached_property
    def _to(self) -> tuple[Template, ...]:
        return tuple(map(Template, self.targets)) or self._from

    @property
    def phase(self) -> Phase:
        """Casts come after all other operations."""
        return "cast" if isinstance(self.op, Cast) else "tensors"

    @property
    def word(self) -> str:  # type: ignore[override]
        """The operation's name."""
        return self.op.word

    @property
    def text(self) -> str:
        """FROM, ... -> TO, ..."""
        return ", ".join(self.sources) + (f" -> {', '.join(self.targets)}" if self.targets else "")

    @property
    def options(self) -> Mapping[str, Any]:
        """The fields of the operation that differ from their defaults, and ``when``."""
        values = {name: getattr(self.op, name) for name in fields_of(type(self.op))}
        written = {name: value for name, value in values.items() if value != getattr(type(self.op), name, _NONE)}
        return written if self.when is None else {**written, "when": self.when}

    def __str__(self) -> str:
        return " ".join([self.word, self.text, *(f"{name}={_write(name, v)}" for name, v in self.options.items())])

    def matches(self, key: str) -> bool:
        """Tell whether it takes a tensor of that name."""
        return any(template.bind(key) is not None for template in self._from)

    def steps(self, tensors: Mapping[str, TensorSpec], taken: Taken | None = None) -> Iterator[Step]:
        """Yield what the rule does to these tensors. Raises UsageError where one does not fit, or is ``taken``.

        Several rules may take a tensor where each has an arrow, and so gives what it makes a name of its own.
        """
        met: set[str] = set()
        for sources, binding in self._groups(tensors):
            met.update(sources)
            specs = tuple(tensors[name] for name in sources)
            if self.when is None or specs[0].shape == self.when:
                self._check_free(sources, taken or {})
                yield self._step(sources, specs, binding)
        if len(self._from) > 1 and (loose := [key for key in self.among(tensors) if key not in met]):
            raise UsageError(str(self), f"finds {loose[0]} without the others that it goes together with")

    def among(self, tensors: Mapping[str, TensorSpec]) -> list[str]:
        """Return the tensors of which the rule takes one; names without patterns are looked up."""
        literals = [template.literal for template in self._from]
        if None in literals:
            return [key for key in tensors if self.matches(key)]
        return [key for key in literals if key is not None and key in tensors]

    def _check_free(self, sources: Names, taken: Taken) -> None:
        for name in sources:
            for step in taken.get(name, ()):
                if not (self.targets and step.rule.targets):
                    reason = f"also takes {name}, which {str(step.rule)!r} takes"
                    hint = "a tensor goes through one operation, and a cast; or name the result of each: FROM -> TO"
                    raise UsageError(str(self), reason, hint)

    def _step(self, sources: Names, specs: tuple[TensorSpec, ...], binding: Binding) -> Step:
        try:
            for spec in specs:
                check_usable(spec)
            scattered = self._only(self._to, self._from)
            op = self.op.bound(specs, 0 if scattered else len(self._to))
            count = len(op.shapes(specs))
        except Misfit as error:
            raise UsageError(str(self), f"{sources[0]} {shape_text(specs[0].shape)} {error}") from None
        bindings = [_bound(binding, scattered, index) for index in range(count)] if scattered else [binding]
        targets = [template.fill(each) for template in self._to for each in bindings]
        if len(targets) != count:
            reason = f"{sources[0]} {shape_text(specs[0].shape)} would become {count:,} tensors, not {len(targets):,}"
            raise UsageError(str(self), reason)
        if None in targets:
            raise UsageError(str(self), f"{sources[0]} would get an index below 0")
        return Step(self, op, sources, tuple(target for target in targets if target is not None), specs)

    def _groups(self, tensors: Mapping[str, TensorSpec]) -> Iterator[tuple[Names, Binding]]:
        """Yield the tensors that go together, with what stars and integers stand for in their names."""
        first = self._from[0]
        if gathered := self._only(self._from, self._to):
            yield from self._gathered(tensors, gathered)
            return
        keys = tensors if first.literal is None else [first.literal] if first.literal in tensors else []
        for key in keys:
            if (binding := first.bind(key)) is not None:
                names = tuple(_named(template, binding) for template in self._from)
                if absent := [name for name in names if name not in tensors]:
                    raise UsageError(str(self), f"finds {key} and no {absent[0]}")
                yield names, binding

    def _gathered(self, tensors: Mapping[str, TensorSpec], index: str) -> Iterator[tuple[Names, Binding]]:
        groups: dict[Binding, dict[int, str]] = {}
        for key in tensors:
            if (binding := self._from[0].bind(key)) is not None:
                rest = tuple(pair for pair in binding[1] if pair[0] != index)
                groups.setdefault((binding[0], rest), {})[dict(binding[1])[index]] = key
        for binding, members in groups.items():
            gap = next((number for number in range(len(members)) if number not in members), None)
            if gap is not None:
                name = self._from[0].fill(_bound(binding, index, gap)) or f"number {gap}"
                raise UsageError(str(self), f"finds {next(iter(members.values()))} and no {name}")
            yield tuple(members[number] for number in range(len(members))), binding


_NONE = object()


def _named(template: Template, binding: Binding) -> str:
    name = template.fill(binding)
    return template.text if name is None else name


def _is_name(text: str) -> bool:
    mask = masked(text + " ")  # a backslash at the end would swallow what follows the name
    return (
        mask[-1] == " "
        and bool(text)
        and not any(char.isspace() or char in ",=" for char in mask[:-1])
        and "->" not in mask
    )


def fields_of(kind: type[Op]) -> Names:
    """Return the options of an operation, which are the fields of its class."""
    return tuple(getattr(kind, "__match_args__"))  # noqa: B009  (type checkers know it on each class, not on Op)


def _bound(binding: Binding, index: str, value: int) -> Binding:
    return binding[0], (*binding[1], (index, value))


def _hint(op: Op) -> str:
    return EXAMPLES.get(op.word, f"as in: {op.word} blocks.{{i}}.weight")


EXAMPLES = {
    "split": "as in: split *.qkv.weight -> *.q.weight, *.k.weight, *.v.weight dim=0",
    "concat": "as in: concat *.q.weight, *.k.weight, *.v.weight -> *.qkv.weight dim=0",
    "stack": "as in: stack experts.{e}.weight -> experts.weight dim=0",
    "unstack": "as in: unstack experts.weight -> experts.{e}.weight dim=0",
    "interleave": "as in: interleave *.gate.weight, *.up.weight -> *.gate_up.weight dim=0",
    "deinterleave": "as in: deinterleave *.gate_up.weight -> *.gate.weight, *.up.weight dim=0",
    "transpose": "as in: transpose h.{i}.attn.c_attn.weight dims=0,1",
    "permute": "as in: permute conv.weight dims=3,2,0,1",
    "reshape": "as in: reshape fc.weight shape=10x512x1x1",
    "rope_permute": "as in: rope_permute *.q_proj.weight heads=32",
    "copy": "as in: copy embed.weight -> lm_head.weight",
    "chain": "as in: chain *.q.weight -> *.W_Q steps=reshape(8,64,512)|permute(0,2,1)",
    "cast": "as in: cast * dtype=float16",
    "slice": "as in: slice fc.* dim=0 start=0 stop=10",
    "part": "as in: part *.qkv.weight -> *.v.weight dim=0 index=2 parts=3",
    "pad": "as in: pad embed.weight dim=0 after=64",
    "adapt_input_conv": "as in: adapt_input_conv conv1.weight in_chans=1",
    "resample_pos_embed": "as in: resample_pos_embed pos_embed size=24x24 prefix_tokens=1",
}


# Options ---------------------------------------------------------------------------------------------------

_SHAPES = ("shape", "size", "old_size", "when")
_LISTS = ("dims", "sizes")
_TEXTS = ("mode", "dtype")


def _write(name: str, value: Any) -> str:
    if isinstance(value, tuple):
        return (("x" if name in _SHAPES else ",").join(map(str, value))) or "()"
    return str(value).lower() if isinstance(value, bool) else str(value)


def _number(text: str) -> int:
    if not text.removeprefix("-").isdecimal() or not text.isascii() or len(text) > 19:
        raise ValueError("a whole number is needed")
    return int(text)


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(map(_number, text.replace("x", ",").split(","))) if text != "()" else ()


def _boolean(text: str) -> bool:
    if text not in ("true", "false"):
        raise ValueError("true or false is needed")
    return text == "true"


def _dtype(text: str) -> str:
    if text not in DTYPES:
        raise ValueError("the name of a dtype is needed, as in dtype=float16")
    return text


def _steps(text: str) -> str:
    return write_steps(read_steps(text))


_READERS: dict[str, Callable[[str], Any]] = {
    **dict.fromkeys((*_SHAPES, *_LISTS), _numbers),
    "inverse": _boolean,
    "mode": str,
    "steps": _steps,
    "dtype": _dtype,
}


def parse_tensor_rule(word: str, text: str) -> TensorRule:
    """Read what follows the word of a tensor rule. Raises UsageError."""
    words: dict[str, str] = {}
    while True:
        head, last = _last_word(text)
        name, equals, value = last.partition("=")
        if not equals or "=" not in masked(last) or not name.isidentifier():
            break
        if name in words:
            raise UsageError(text, f"says {name}= twice")
        words[name], text = value, head
    return build_tensor_rule(word, text, dict(reversed(words.items())))


def build_tensor_rule(word: str, text: str, options: Mapping[str, str]) -> TensorRule:
    """Make a rule of its word, its names and its options, each as text. Raises UsageError."""
    kind = OPS[word]
    known = (*fields_of(kind), "when")
    for name in options:
        if name not in known:
            raise UsageError(word, f"has no option {name!r}{did_you_mean(name, known)}", EXAMPLES.get(word))
    values = {name: _value(word, name, value) for name, value in options.items()}
    when = values.pop("when", None)
    for name in fields_of(kind):
        if name not in values and not hasattr(kind, name):
            raise UsageError(word, f"needs {name}=", EXAMPLES.get(word))
    sources, *targets = cut(text, "->")
    if len(targets) > 1:
        raise UsageError(word, "has more than one arrow", EXAMPLES.get(word, EXAMPLE))
    names = tuple(cut(targets[0], ",")) if targets else ()
    return TensorRule(kind(**values), tuple(cut(sources, ",")), names, when)


def _value(word: str, name: str, text: str) -> Any:
    try:
        return _READERS.get(name, _number)(text)
    except ValueError as error:
        raise UsageError(word, f"has {name}={text}; {error}", EXAMPLES.get(word)) from None


def _last_word(text: str) -> tuple[str, str]:
    mask = masked(text)
    start = max((index for index, char in enumerate(mask) if char.isspace()), default=-1)
    return strip(text[: max(start, 0)]), text[start + 1 :]
