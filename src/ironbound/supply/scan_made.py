"""Texts that a program makes of constants: put together, turned, or decoded from what a reader would not read.

Decides what an expression of Python's comes to, where it is made of constants alone by the operations below, and which
names stand in a constant backwards, by rot13, in base64 or in hexadecimal. Nothing is run: the operations are done
here, on texts of at most MAX_MADE characters. What else a program computes is not followed; the surface names it
(`dynamic`, `environment *`).
"""

from __future__ import annotations

import ast
import codecs
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from ironbound.core.canonical import FormatError, b64decode

from .scan_words import STRONG, strong, words

#: Characters of a text that is made, and expressions within each other.
MAX_MADE: Final = 1000
MAX_DEPTH: Final = 40
MADE: Final = (ast.BinOp, ast.JoinedStr, ast.Call, ast.Subscript)
"""The expressions that can be made of constants."""
_SHORT: Final = 8
"""Letters of a name that is looked for in disguise."""
_BASE64: Final = re.compile(r"(?:[A-Za-z0-9+/]{4}){3,}(?:[A-Za-z0-9+/]{2}==|[A-Za-z0-9+/]{3}=)?")
_HEX: Final = re.compile(r"(?:[0-9a-fA-F]{2}){8,}")
_TEXT: Final = re.compile(r"[ -~]{6,100}")


def made(node: ast.AST | None, names: Mapping[str, str], depth: int = 0) -> str | None:
    """The text that an expression comes to; None for what is not made of constants. `names`: the module's own."""
    if node is None or depth > MAX_DEPTH:
        return None
    text = _made(node, names, depth + 1)
    return text if text is not None and len(text) <= MAX_MADE else None


def _made(node: ast.AST, names: Mapping[str, str], depth: int) -> str | None:
    if isinstance(node, ast.Constant):
        value = node.value
        return value.decode("latin-1") if isinstance(value, bytes) else value if isinstance(value, str) else None
    if isinstance(node, ast.Name):
        return names.get(node.id)
    if isinstance(node, ast.BinOp):
        return _operated(node, names, depth)
    if isinstance(node, ast.JoinedStr):
        parts = [one.value if isinstance(one, ast.FormattedValue) else one for one in node.values]
        return _all(parts, names, depth, "")
    if isinstance(node, ast.Subscript):
        step = node.slice.step if isinstance(node.slice, ast.Slice) else None
        turned = isinstance(step, ast.UnaryOp) and isinstance(step.op, ast.USub) and _number(step.operand) == 1
        text = made(node.value, names, depth) if turned else None
        return None if text is None else text[::-1]
    return _called(node, names, depth) if isinstance(node, ast.Call) else None


def _number(node: ast.AST | None) -> int | None:
    return node.value if isinstance(node, ast.Constant) and isinstance(node.value, int) else None


def _all(nodes: list[Any], names: Mapping[str, str], depth: int, between: str) -> str | None:
    parts = [made(one, names, depth) for one in nodes[:MAX_MADE]]
    found = [one for one in parts if one is not None]
    return between.join(found) if len(found) == len(parts) and parts else None


def _operated(node: ast.BinOp, names: Mapping[str, str], depth: int) -> str | None:
    if isinstance(node.op, ast.Add):
        return _all([node.left, node.right], names, depth, "")
    if not isinstance(node.op, ast.Mod) or not isinstance(node.left, ast.Constant):
        return None
    return _filled(made(node.left, names, depth), "%s", "%",
                   node.right.elts if isinstance(node.right, ast.Tuple) else [node.right], names, depth)  # fmt: skip


def _filled(
    text: str | None, hole: str, mark: str, nodes: list[Any], names: Mapping[str, str], depth: int
) -> str | None:
    parts = [] if text is None else text.split(hole)
    values = [made(one, names, depth) for one in nodes[:100]]
    if len(parts) != len(values) + 1 or any(mark in one for one in parts) or None in values:
        return None
    return "".join(part + (value or "") for part, value in zip(parts, [*values, ""], strict=True))


def _called(node: ast.Call, names: Mapping[str, str], depth: int) -> str | None:
    where, arguments = node.func, node.args
    if node.keywords or not isinstance(where, (ast.Attribute, ast.Name)):
        return None
    word = where.attr if isinstance(where, ast.Attribute) else where.id
    first = arguments[0] if arguments else None
    if word == "bytes" and isinstance(first, (ast.List, ast.Tuple)):
        return _characters(first)
    if word in ("b64decode", "fromhex", "unhexlify", "standard_b64decode") and len(arguments) == 1:
        text = made(first, names, depth)
        return None if text is None else _decoded("hex" if "hex" in word else "base64", text)
    if word == "decode" and len(arguments) == 2 and made(arguments[1], names, depth) in ("rot13", "rot_13"):
        text = made(first, names, depth)
        return None if text is None else codecs.encode(text, "rot13")
    if not isinstance(where, ast.Attribute) or (text := made(where.value, names, depth)) is None:
        return None
    if word == "join" and len(arguments) == 1:
        return _joined(first, text, names, depth)
    if word == "format":
        return _filled(text, "{}", "{", arguments, names, depth)
    if word == "replace" and len(arguments) == 2 and len(text) < 200:
        old, new = (made(one, names, depth) for one in arguments)
        return text.replace(old, new[:8]) if old and new is not None else None
    return {"upper": text.upper(), "lower": text.lower(), "strip": text, "decode": text, "encode": text}.get(word)


def _joined(node: ast.AST | None, between: str, names: Mapping[str, str], depth: int) -> str | None:
    if isinstance(node, (ast.List, ast.Tuple)):
        return _all(node.elts, names, depth, between)
    if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
        if node.func.id == "map" and len(node.args) == 2 and getattr(node.args[0], "id", "") == "chr":
            return _characters(node.args[1])
        text = made(node.args[0], names, depth) if node.func.id == "reversed" and len(node.args) == 1 else None
        return None if text is None else between.join(reversed(text))
    if isinstance(node, (ast.GeneratorExp, ast.ListComp)) and isinstance(node.elt, ast.Call):
        if getattr(node.elt.func, "id", "") == "chr" and len(node.generators) == 1:
            return _characters(node.generators[0].iter)
    return None


def _characters(node: ast.AST | None) -> str | None:
    numbers = [_number(one) for one in node.elts[:MAX_MADE]] if isinstance(node, (ast.List, ast.Tuple)) else [None]
    found = [one for one in numbers if one is not None and 0 < one < 0x110000]
    return "".join(map(chr, found)) if found and len(found) == len(numbers) else None


# In disguise


def _decoded(how: str, text: str) -> str | None:
    try:
        data = bytes.fromhex(text) if how == "hex" else b64decode(text)
        found = data.decode("ascii")
    except (ValueError, FormatError):
        return None
    return found if _TEXT.fullmatch(found) else None


_WORDS: Final = frozenset(word for several in STRONG.values() for phrase in several for word in phrase.split())
_TURNED: Final = frozenset(
    turned for word in _WORDS if len(word) > 3 for turned in (word[::-1], codecs.encode(word, "rot13"))
)
"""The words of the strong rules backwards and by rot13, by which what can't be one is told at once."""


def disguised(text: str) -> Iterator[tuple[str, str]]:
    """Each name in disguise that meets a strong rule, with that rule; `text` is a constant of a program."""
    if len(text) < _SHORT:
        return
    for how, pattern in (("base64", _BASE64), ("hex", _HEX)):
        if pattern.fullmatch(text) and (found := _decoded(how, text)) and (rule := strong(found)):
            yield f"{found} (in {how})", rule
    if len(text) <= 100 and not _TURNED.isdisjoint(words(text).split()):
        for how, found in (("backwards", text[::-1]), ("by rot13", codecs.encode(text, "rot13"))):
            if rule := strong(found):
                yield f"{found} ({how})", rule
