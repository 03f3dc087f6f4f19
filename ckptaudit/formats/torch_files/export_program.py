"""What torch.export.load runs as it opens a program, before anybody calls it: that much of a program is judged.

Its graph is data, with two exceptions. Symbolic sizes are text, which sympy evaluates as Python. And the structure of
its inputs and outputs may name modules to import, for the classes of enums and default dicts.
"""

from __future__ import annotations

import builtins
import json
import re
from collections.abc import Iterator

from ..base import Global, Remark
from ..pickles.globals import classify, full_name
from ..strict_json import RepeatedKey, strict_object
from .export_payloads import parse_object
from .zip_archive import Archive

_ENUM, _FACTORY = "__enum__", "default_factory_module"
_MARKS = (_ENUM.encode(), _FACTORY.encode())
_HIDING = rb"\\u00[2-7]"  # the escape of a letter, which could be one of a name that matters here
_EXPRESSION = rb'"expr_str"\s*:\s*(?:"([^"]*)")?'  # what has a quote or a backslash in it is no size anyway
_SHOWN = 60  # characters of an expression
_FUNCTIONS = frozenset(
    {
        "Abs", "Add", "And", "BooleanFalse", "BooleanTrue", "Eq", "Equality", "ExprCondPair", "Float", "Ge",
        "GreaterThan", "Gt", "Half", "Integer", "Le", "LessThan", "Lt", "Max", "Min", "Mod", "Mul", "Ne",
        "NegativeOne", "Not", "One", "Or", "Piecewise", "Pow", "Rational", "StrictGreaterThan", "StrictLessThan",
        "Symbol", "Unequality", "Zero", "ceiling", "exp", "floor", "log", "sqrt",
        # torch.utils._sympy.functions
        "BitwiseFn_bitwise_and", "BitwiseFn_bitwise_or", "BitwiseFn_bitwise_xor", "CeilDiv", "CeilToInt",
        "CleanDiv", "FloatPow", "FloatTrueDiv", "FloorDiv", "FloorToInt", "Identity", "IntTrueDiv",
        "IsNonOverlappingAndDenseIndicator", "LShift", "MinMaxBase", "ModularIndexing", "OpaqueUnaryFn_acos",
        "OpaqueUnaryFn_asin", "OpaqueUnaryFn_asinh", "OpaqueUnaryFn_atan", "OpaqueUnaryFn_cos",
        "OpaqueUnaryFn_cosh", "OpaqueUnaryFn_exp", "OpaqueUnaryFn_log", "OpaqueUnaryFn_log2",
        "OpaqueUnaryFn_sin", "OpaqueUnaryFn_sinh", "OpaqueUnaryFn_sqrt", "OpaqueUnaryFn_tan",
        "OpaqueUnaryFn_tanh", "PowByNatural", "PythonMod", "RShift", "RoundDecimal", "RoundToInt", "ToFloat",
        "TruncToFloat", "TruncToInt", "Where",
    }
)  # fmt: skip
_TOKEN = re.compile(
    r"""\s*(?:
        (?P<name>[A-Za-z_]\w*)
      | (?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)
      | (?P<text>(['"])(?:[A-Za-z_]\w*|[-+]?\d+\.?\d*(?:[eE][-+]?\d+)?)\4)
      | (?P<mark>\*\*|//|[<>=!]=|[-+*/%(),=<>&|~])
    )""",
    re.ASCII | re.VERBOSE,
)


def judge_program(archive: Archive, name: str) -> tuple[list[Global], list[Remark]]:
    """Return what the modules of a program's inputs are, and a CKPT702 remark for an expression that is none.

    Raises FormatError: CKPT703 beyond a limit, CKPT002 where the JSON had to be parsed and is none.
    """
    archive.stored(name)
    data = archive.content(name, "index_bytes")
    named: list[Global] = []
    if any(mark in data for mark in _MARKS) or re.search(_HIDING, data):
        expressions: set[str] = set()
        for node in _objects(archive, name, parse_object(archive, name, data)):
            value = node.get("expr_str", "0")
            expressions.add(value if isinstance(value, str) else ascii(value)[:_SHOWN] + "...")
            if (imported := _imported(node)) is not None:
                named.append(Global(imported, classify(imported), name, 0))
    else:
        expressions = {(match[1] or b"...").decode("ascii", "replace") for match in re.finditer(_EXPRESSION, data)}
    archive.spent.opcodes += sum(map(len, expressions))
    if archive.spent.opcodes > archive.limits.pickle_opcodes:
        archive.exceeded(f"its {name} has more symbolic sizes than are read", "pickle_opcodes")
    odd = sorted(text for text in expressions if not is_symbolic(text))
    reason = "makes torch.export.load evaluate {!a}, which is no symbolic size ({})"
    return named, [Remark("CKPT702", reason.format(odd[0][:_SHOWN], name), (name,))] if odd else []


def _objects(archive: Archive, name: str, root: object) -> Iterator[dict[str, object]]:
    """Yield every JSON object of a program, and those inside the JSON that its strings hold."""
    todo = [root]
    while todo:
        node = todo.pop()
        if isinstance(node, RepeatedKey):
            archive.broken(f"its {name} names {node.key!a} twice")
        elif isinstance(node, dict):
            yield node
            todo.extend(node.values())
        elif isinstance(node, list):
            todo.extend(node)
        elif isinstance(node, str) and (_ENUM in node or _FACTORY in node):
            try:
                todo.append(json.loads(node, object_pairs_hook=strict_object))
            except ValueError:  # no JSON, so nobody imports what it names
                pass
            except RecursionError:
                archive.broken(f"its {name} is nested too deeply")


def _imported(node: dict[str, object]) -> str | None:
    """Return the full name of the class for which a part of the inputs' structure imports a module, or None."""
    if _FACTORY in node:
        module, attribute = node[_FACTORY], node.get("default_factory_name")
    elif _ENUM in node:
        module, _, attribute = str(node.get("fqn")).partition(":")
    else:
        return None
    return full_name(ascii(str(module))[1:-1], ascii(str(attribute))[1:-1])


def is_symbolic(expression: str) -> bool:
    """Tell whether a text is a symbolic size: numbers, names, operators and calls of sympy's classes alone.

    It is evaluated as Python, with Python's own functions at hand, so that everything else is refused.
    """
    text = expression.strip()
    position, before = 0, ("mark", "")
    while position < len(text):
        token = _TOKEN.match(text, position)
        if token is None:
            return False
        kind = str(token.lastgroup)
        part = token[kind]
        if kind == "name" and not _is_plain(part):
            return False
        value_before = before[0] != "mark" or before[1] == ")"
        if value_before and (kind != "mark" or (part == "(" and before[1] not in _FUNCTIONS)):
            return False  # two values in a row, or the call of something else than a name in the list
        position, before = token.end(), (kind, part)
    return True


def _is_plain(name: str) -> bool:
    """Tell whether a name is no part of Python itself."""
    return "__" not in name and name != "lambda" and (name in ("True", "False", "None") or not hasattr(builtins, name))
