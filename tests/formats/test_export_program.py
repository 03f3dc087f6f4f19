"""Which texts are symbolic sizes, and which would run as sympy evaluates them."""

from __future__ import annotations

import inspect

import pytest
import sympy
import torch.utils._sympy.functions as torch_functions
from hypothesis import given
from hypothesis import strategies as st
from torch.utils._sympy.functions import FloorDiv, Mod, ToFloat, TruncToInt

from ckptaudit.formats.torch_files.export_program import _FUNCTIONS, is_symbolic

s0, s1 = (sympy.Symbol(name, positive=True, integer=True) for name in ("s0", "s1"))
u0 = sympy.Symbol("u0", integer=True)
sizes = st.recursive(
    st.sampled_from([s0, s1, u0]) | st.integers(-99, 99).map(sympy.Integer),
    lambda inner: st.builds(
        lambda make, a, b: make(a, b),
        st.sampled_from([sympy.Add, sympy.Mul, sympy.Max, sympy.Min, lambda a, b: FloorDiv(a, abs(b) + 1)]),
        inner,
        inner,
    ),
    max_leaves=8,
)


@given(sizes)
def test_what_torch_writes_is_symbolic(size: sympy.Expr) -> None:
    assert is_symbolic(sympy.srepr(size))
    assert is_symbolic(str(size))


@pytest.mark.parametrize(
    "size",
    [
        s0 + 1,
        -s0,
        s0**2 / 3,
        sympy.Mod(s0, 3),
        Mod(s0 + s1, 7),
        TruncToInt(ToFloat(s0) * sympy.Float(1.5)),
        sympy.Float("1e-30") * ToFloat(s0),
        sympy.Eq(s0, 4),
        sympy.Ne(s0, s1),
        s0 >= 2,
        sympy.And(s0 > 2, sympy.Or(s1 < 3, sympy.Eq(u0, 0))),
        sympy.Not(sympy.Eq(s0, 1)),
        sympy.Piecewise((s0, s0 > 2), (0, True)),
        sympy.true,
        sympy.Rational(1, 2),
        sympy.sqrt(s0),
        sympy.ceiling(s0 / 2),
    ],
)
def test_sizes(size: sympy.Expr) -> None:
    assert is_symbolic(sympy.srepr(size))
    assert is_symbolic(str(size))


@pytest.mark.parametrize(
    "text",
    [
        "__import__('os').system('id')",
        "eval('1')",
        "exec ('x')",
        "(exec)('x')",
        "Symbol('a')('b')",
        "open('x')",
        "print",
        "max(1, 2)",
        "s0.func",
        "Symbol.__class__",
        "lambda: 0",
        "(lambda x: x)(1)",
        "[1][0]",
        "{}",
        "Symbol('__import__(1)')",
        "Symbol('a b')",
        "Add('os.system')",
        "f'{1}'",
        "1(2)",
        "'x'(2)",
        "mark(1)",
        "symbols('x')",
        "Symbol('x'); 1",
        "s0 := 1",
        "a\\b",
        "\uff45val(1)",  # a full-width letter, which Python reads as e
        "Integer(1)\nimport os",
        "#",
    ],
)
def test_everything_else_is_refused(text: str) -> None:
    assert not is_symbolic(text)


def test_long_texts_take_their_time_only_once() -> None:
    assert is_symbolic("1+" * 200_000 + "1")
    assert is_symbolic(" " * 200_000 + "1" + " " * 200_000)


def test_the_functions_of_torch_are_known() -> None:
    """Those torch hands to sympy by name when it reads a program, and those its own passes make."""
    found = {
        name
        for name, value in vars(torch_functions).items()
        if inspect.isclass(value) and issubclass(value, sympy.Function) and value.__module__ == torch_functions.__name__
    }
    assert found - _FUNCTIONS <= {"OpaqueUnaryFn", "BitwiseFn"}, found - _FUNCTIONS
