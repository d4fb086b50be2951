"""Filters of cases as expressions: ``error > 0.5 and label == "tumor" and "ink" in tags``.

An expression is Python's, of which only comparisons, ``and``, ``or``, ``not``, ``in``, names,
numbers, words and ``+ - * /`` are allowed: it is checked node by node and worked out here, never
evaluated as a program. A name stands for a column; one that is no plain word is put in brackets,
``p["my-model"]``, ``fact["slide scanner"]``. What a case does not have compares as false.
"""

from __future__ import annotations

import ast
import operator
from collections.abc import Callable, Mapping
from typing import Any

from napari_histomil.errors import ReviewError, listed

MOST_CHARACTERS = 2000
MOST_DEPTH = 60

_COMPARE: dict[type[ast.cmpop], Callable[[Any, Any], bool]] = {
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_COUNT: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}

Values = Mapping[str, Any]
Filter = Callable[[Values], bool]


def read_filter(text: str, names: Mapping[str, str]) -> Filter:
    """Return what an expression says of a case's values.

    Parameters
    ----------
    text
        The expression; an empty one is true of all.
    names
        Allowed names with what they are, in words.

    Returns
    -------
    callable
        Takes the values of a case by name, with those in brackets, ``p["my-model"]``, as a
        mapping called ``p[]``; returns whether the expression is true of it.

    Raises
    ------
    ReviewError
        If it is no expression, or uses what is not allowed.
    """
    if not text.strip():
        return lambda _: True
    if len(text) > MOST_CHARACTERS:
        raise ReviewError(f"The filter is longer than {MOST_CHARACTERS} characters.")
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        what = error.msg if isinstance(error, SyntaxError) else str(error)
        raise ReviewError(f"{text!r} is no filter: {what}.") from error
    _check(tree.body, names, text, 0)
    return lambda values: bool(_value(tree.body, values))


def _check(node: ast.AST, names: Mapping[str, str], text: str, depth: int) -> None:
    if depth > MOST_DEPTH:
        raise ReviewError("The filter is nested too deeply.")
    below: list[ast.AST] = []
    match node:
        case ast.BoolOp(values=values):
            below = [*values]
        case ast.UnaryOp(op=ast.Not() | ast.USub(), operand=operand):
            below = [operand]
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _COUNT:
            below = [left, right]
        case ast.Compare(left=left, comparators=right):
            below = [left, *right]
        case ast.Constant(value=None | bool() | int() | float() | str()):
            pass
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            below = [*elements]
        case ast.Name(id=name):
            if name not in names:
                raise ReviewError(
                    f"The filter {text!r} asks for {name!r}, and a case has {listed(list(names))}."
                )
        case ast.Subscript(value=ast.Name() as base, slice=ast.Constant(value=str())):
            below = [base]
        case _:
            raise ReviewError(
                f'A filter compares columns, such as error > 0.5 and status != "done"; '
                f"{ast.unparse(node)!r} is more than it may say."
            )
    for each in below:
        _check(each, names, text, depth + 1)


def _value(node: ast.AST, values: Values) -> Any:
    match node:
        case ast.BoolOp(op=ast.And(), values=parts):
            return all(_value(part, values) for part in parts)
        case ast.BoolOp(values=parts):
            return any(_value(part, values) for part in parts)
        case ast.UnaryOp(op=ast.Not(), operand=operand):
            return not _value(operand, values)
        case ast.UnaryOp(operand=operand):
            return _counted(operator.sub, 0, _value(operand, values))
        case ast.BinOp(left=left, op=op, right=right):
            return _counted(_COUNT[type(op)], _value(left, values), _value(right, values))
        case ast.Compare(left=left, ops=ops, comparators=others):
            sides = [_value(each, values) for each in (left, *others)]
            return all(_compare(op, *sides[n : n + 2]) for n, op in enumerate(ops))
        case ast.Constant(value=constant):
            return constant
        case ast.List(elts=elements) | ast.Tuple(elts=elements):
            return [_value(each, values) for each in elements]
        case ast.Name(id=name):
            return values.get(name)
        case ast.Subscript(value=ast.Name(id=name), slice=ast.Constant(value=key)):
            inside = values.get(f"{name}[]")
            return inside.get(key) if isinstance(inside, Mapping) else None
    raise AssertionError("checked before")


def _counted(count: Callable[[Any, Any], Any], one: Any, two: Any) -> Any:
    """Return a sum, difference, ...; None where a side is no number."""
    if not all(isinstance(side, int | float) for side in (one, two)):
        return None
    try:
        return count(one, two)
    except (ZeroDivisionError, OverflowError):
        return None


def _compare(op: ast.cmpop, one: Any, two: Any) -> bool:
    """Compare two sides; words without regard to case, what is missing never."""
    one, two = _plain(one), _plain(two)
    if isinstance(op, ast.Eq | ast.Is):
        return bool(one == two)
    if isinstance(op, ast.NotEq | ast.IsNot):
        return bool(one != two)
    if isinstance(op, ast.In | ast.NotIn):
        try:
            inside = two is not None and one in two
        except TypeError:  # a number in a word
            inside = False
        return inside == isinstance(op, ast.In)
    if isinstance(one, str) != isinstance(two, str) or None in (one, two):
        return False
    try:
        return _COMPARE[type(op)](one, two)
    except TypeError:
        return False


def _plain(side: Any) -> Any:
    if isinstance(side, str):
        return side.casefold()
    if isinstance(side, list | tuple):
        return [_plain(each) for each in side]
    return side
