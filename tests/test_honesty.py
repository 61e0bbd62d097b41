"""Every assertion in the tests states one thing, and no condition keeps it from running.

``assert a or b`` passes where ``a`` is wrong, and an ``assert`` in an ``if`` does not run where the
condition is wrong; both have hidden faults in this project. Instead, parametrize, write a test for
each case, or compute the expected value first and compare. Loops, ``with`` and ``try`` are allowed.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

TESTS = Path(__file__).parent
MODULES = sorted(str(path.relative_to(TESTS)) for path in TESTS.rglob("*.py"))
# Their truth does not depend on the code under test.
LITERALS = (ast.Constant, ast.Tuple, ast.List, ast.Set, ast.Dict, ast.JoinedStr, ast.Lambda)
SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)


def weak_assertions(node: ast.AST, conditional: bool = False) -> Iterator[tuple[int, str]]:
    """The line of each assertion that can pass by mistake, and the reason.

    Args:
        node: a module, or a part of one.
        conditional: the part is inside an ``if`` or ``match`` of the same function, at any depth.
    """
    if isinstance(node, ast.Assert):
        for reason in {*reasons(node.test), *(["conditional"] if conditional else [])}:
            yield node.lineno, reason
    conditional = not isinstance(node, SCOPES) and (
        conditional or isinstance(node, ast.If | ast.Match)
    )
    for child in ast.iter_child_nodes(node):
        yield from weak_assertions(child, conditional)


def reasons(test: ast.expr) -> Iterator[str]:
    """The reasons why an asserted expression can be true by mistake."""
    match test:
        case ast.UnaryOp(op=ast.Not(), operand=inner) | ast.NamedExpr(value=inner):
            yield from reasons(inner)
        case ast.BoolOp(op=ast.And(), values=values):
            for value in values:
                yield from reasons(value)
        case ast.BoolOp() | ast.IfExp():
            yield "alternatives"
        case ast.Call(func=ast.Name("any"), args=[ast.List() | ast.Tuple() | ast.Set()]):
            yield "alternatives"
        case _ if isinstance(test, LITERALS):
            yield "constant"


@pytest.mark.parametrize("module", MODULES)
def test_no_assertion_in_the_tests_can_pass_by_mistake(module: str) -> None:
    assert list(weak_assertions(ast.parse((TESTS / module).read_text()))) == []


def test_all_modules_of_the_tests_are_checked() -> None:
    assert Path(__file__).name in MODULES
    assert {Path(module).parts[0] for module in MODULES} >= {"handler", "server", "scripts"}


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ("assert a or b", "alternatives"),
        ("assert a or b, message", "alternatives"),
        ("assert (a or b)", "alternatives"),
        ("assert not (a or b)", "alternatives"),
        ("assert a and (b or c)", "alternatives"),
        ("assert a if b else c", "alternatives"),
        ("assert (a if b else c) and d", "alternatives"),
        ("assert not (a if b else c)", "alternatives"),
        ("assert (a := b or c)", "alternatives"),
        ("assert any([a, b])", "alternatives"),
        ("assert any((a, b))", "alternatives"),
        ("if a: assert b", "conditional"),
        ("if a: pass\nelse: assert b", "conditional"),
        ("if a: pass\nelif b: assert c", "conditional"),
        ("if a:\n for b in c: assert b", "conditional"),
        ("if a:\n with b: assert c", "conditional"),
        ("if a:\n try: assert b\n finally: pass", "conditional"),
        ("for a in b:\n if c: assert a", "conditional"),
        ("match a:\n case 1: assert b", "conditional"),
        ("match a:\n case _: assert b", "conditional"),
        ("assert (a, 'message')", "constant"),
        ("assert [a]", "constant"),
        ("assert {a: b}", "constant"),
        ("assert 'message'", "constant"),
        ("assert f'{a}'", "constant"),
        ("assert True", "constant"),
        ("assert lambda: a", "constant"),
        ("assert a and True", "constant"),
    ],
)
def test_an_assertion_that_can_pass_by_mistake_is_found(source: str, reason: str) -> None:
    assert [found for _, found in weak_assertions(ast.parse(source))] == [reason]


@pytest.mark.parametrize(
    "source",
    [
        "assert a",
        "assert a, b or c",
        "assert a == (b or c)",
        "assert a == (b if c else d)",
        "assert (a or b) == c",
        "assert a and b",
        "assert not a",
        "assert any(a for a in b)",
        "assert all([a, b])",
        "assert () == a",
        "for a in b: assert a",
        "for a in b:\n if c: continue\n assert a",
        "while a: assert b",
        "with a: assert b",
        "try: assert a\nfinally: pass",
        "async def a():\n async with b: assert c",
        "if a: b = 1\nassert b",
        # A function in an `if` runs when it is called.
        "if a:\n def b(): assert c",
        "match a:\n case 1: b = 1\nassert b",
    ],
)
def test_every_other_assertion_is_allowed(source: str) -> None:
    assert list(weak_assertions(ast.parse(source))) == []


def test_the_line_is_that_of_the_assertion() -> None:
    source = "def test():\n    assert a\n    if b:\n        assert c or d\n"
    found = weak_assertions(ast.parse(source))
    assert sorted(found) == [(4, "alternatives"), (4, "conditional")]
