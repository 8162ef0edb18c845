"""The page's bytes: a screen's rows in type, and the one script and style that its policy lets run.

Decides how it looks. Every value is escaped; what a page needs beside its rows stands in attributes.
"""

from __future__ import annotations

import hashlib
import json
from base64 import b64encode
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from html import escape
from importlib import resources
from string import Template
from typing import Any, Final

from ironbound.core.shown import Row

_FOLDER: Final = resources.files("ironbound.terminal.approval")


def _text(name: str) -> str:
    return (_FOLDER / name).read_text(encoding="utf-8")


_PAGE, _STYLE, _SCRIPT = Template(_text("page.html")), _text("page.css"), _text("page.js")


def _hashed(text: str) -> str:
    return f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'"


POLICY: Final = (
    f"default-src 'none'; script-src {_hashed(_SCRIPT)}; style-src {_hashed(_STYLE)}; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)


@dataclass(frozen=True, slots=True)
class Content:
    """What one page says: to `who`, with these sections of rows, and what the browser is asked for (`options`).

    `quiet` is the button that signs nothing, `unsigned` what the terminal says then.
    """

    who: str
    eyebrow: str
    heading: str
    lead: str
    ask: str
    button: str
    quiet: str
    unsigned: str
    sections: tuple[tuple[str, tuple[Row, ...]], ...]
    options: Mapping[str, Any]


def render(content: Content, secret: str) -> str:
    """The whole document, in UTF-8."""
    return _PAGE.substitute(
        title=escape(f"{content.heading} · {content.who}"),
        style=_STYLE,
        script=_SCRIPT,
        options=escape(json.dumps(content.options)),
        secret=escape(secret),
        eyebrow=escape(content.eyebrow),
        heading=escape(content.heading),
        lead=escape(content.lead),
        ask=escape(content.ask),
        button=escape(content.button),
        quiet=escape(content.quiet),
        sections="\n".join(_section(name, rows) for name, rows in content.sections),
    )


def _section(name: str, rows: Iterable[Row]) -> str:
    lines = "\n".join(_row(row) for row in rows)
    return (
        f'<section class="card" aria-label="{escape(name)}">\n<h2>{escape(name)}</h2>\n<dl>\n{lines}\n</dl>\n</section>'
    )


def _row(row: Row) -> str:
    marks = {"part": row.part, "wide": row.wide, "words": row.label == "words"}
    classes = " ".join(["row", *(mark for mark, holds in marks.items() if holds)])
    return f'<div class="{classes}"><dt>{escape(row.label)}</dt><dd>{escape(row.value)}</dd></div>'
