"""Reasons are a closed list: whatever says no names one of them, and none stands there for nothing."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import ironbound
from ironbound.core.reasons import REASONS

PACKAGE = Path(ironbound.__file__).parent
#: Exceptions and answers whose first argument is a reason; the kernel's `Refused` only where it is imported.
SAYING = {"ArgumentsRefused", "Denied"}
#: The files of the kernel's table, whose guards yield reasons.
TABLE = {"authority.py", "giving.py", "rule.py", "using.py"}


def _sources() -> Iterator[tuple[Path, ast.Module]]:
    for path in sorted(PACKAGE.rglob("*.py")):
        yield path, ast.parse(path.read_text("utf-8"))


def _imports_kernel_refused(tree: ast.Module) -> bool:
    return any(
        isinstance(node, ast.ImportFrom)
        and (node.module or "").endswith(("authority", "rule"))
        and any(name.name == "Refused" for name in node.names)
        for node in ast.walk(tree)
    )


def _words(node: ast.AST) -> Iterator[str]:
    """The words that an argument can be: itself, or either side of a conditional."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        yield node.value
    elif isinstance(node, ast.IfExp):
        yield from _words(node.body)
        yield from _words(node.orelse)


def _said() -> Iterator[tuple[str, str]]:
    for path, tree in _sources():
        kernel = _imports_kernel_refused(tree) or path.name in TABLE
        for node in ast.walk(tree):
            if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.args:
                if node.func.id in SAYING or (node.func.id == "Refused" and kernel):
                    for word in _words(node.args[0]):
                        yield word, f"{path.name}:{node.lineno}"
                if node.func.id == "Entry" and len(node.args) > 6:
                    for word in _words(node.args[6]):
                        yield word, f"{path.name}:{node.lineno}"
            if path.name in TABLE and isinstance(node, ast.Yield) and isinstance(node.value, ast.Tuple):
                first = node.value.elts[0]
                if len(node.value.elts) == 2:
                    for word in _words(first):
                        yield word, f"{path.name}:{node.lineno}"


def test_every_refusal_in_the_source_has_its_line_in_the_list() -> None:
    said = list(_said())
    assert len({word for word, _ in said}) > 50
    missing = [(word, where) for word, where in said if word not in REASONS]
    assert not missing


def test_no_reason_stands_in_the_list_for_nothing() -> None:
    words = {
        node.value
        for path, tree in _sources()
        if path.name != "reasons.py"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    assert not REASONS.keys() - words


def test_reasons_are_words_and_their_meanings_one_sentence() -> None:
    for code, meaning in REASONS.items():
        assert code == code.lower() and code.replace("-", "").isalpha()
        assert meaning and not meaning.endswith(".") and "\n" not in meaning and len(meaning) < 160
