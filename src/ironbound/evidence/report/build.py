"""Makes the report of an evidence bundle: what the verifier says, and the log itself for the page to check anew.

Decides only how things are told. The claims come from `ironbound.verifier`; what the reader's browser recomputes, it
recomputes from the entries that are packed here, with the code in `check.js`. Source: 2-architecture, "The bundle and
the claims".

Rule 1: the page loads nothing: its policy allows its own style and script, by hash, and no address.
Rule 2: text from the log reaches the page escaped, or as text through the DOM; never as markup.
Rule 3: the same bundle and pin give the same bytes.
"""

from __future__ import annotations

import zlib
from base64 import b64encode
from collections.abc import Iterable, Iterator, Mapping, Sequence
from hashlib import sha256
from html import escape
from importlib import resources
from typing import Any, BinaryIO, Final

from ironbound.core.canary import Controlled
from ironbound.core.canonical import FormatError, canonical, parse_canonical
from ironbound.core.envelope import MAX_ENVELOPE, envelope_from_value, parse_envelope
from ironbound.core.merkle import leaf_hash
from ironbound.core.release import MAX_SIGNED
from ironbound.core.statement import VOICES, parse_statement
from ironbound.core.tile import Tile, decode_entries, parse_tile_path
from ironbound.core.trust import PRODUCTION, Pin
from ironbound.evidence.oscal.controls import controls
from ironbound.verifier.bundle import Bundle
from ironbound.verifier.claims import CLAIMS, HOLDS, REFUTED, UNPROVEN, Claim
from ironbound.verifier.codes import REFUTING, explain
from ironbound.verifier.output import report_value
from ironbound.verifier.times import utc
from ironbound.verifier.trace import Ladder, ladders
from ironbound.verifier.verify import Progress, Report, judge, read_bundle

from .assurance import case_section, load_case

MAX_LOG: Final = 6 << 20
"""Bytes of the packed log; with base64 and the page around it the report stays below 10 MB."""

MAX_CHAINS: Final = 100
"""Launches whose chain is in the page."""

#: What a release key signed, among the kinds of entries that the page may lack.
_STATEMENTS: Final = "statements"
#: What stands in the page as a hash alone, one group after the other, if the log is too large: first what is many.
_DROPPED: Final = (
    frozenset({"heartbeat"}),
    frozenset({"action-intent", "action-outcome", "action-denied"}),
    frozenset({"refused", "delegated", "dropped"}),
    frozenset({"started", "observed", "exited", "launch-refused", "canary-challenge", "canary-result"}),
    frozenset({"service-started", "host-measured", _STATEMENTS, *VOICES["monitor"]}),
)
_LAYERS: Final = {
    "A": "The agent's code",
    "B": "Its sandbox",
    "C": "The control plane",
    "D": "The log",
    "E": "The supply chain",
    "F": "The second voice",
}
_QUESTIONS: Final = (
    ("AC-5", "Who holds the operators' keys named here, and does any one person have access to two of them?"),
    ("AC-3(2)", "How do two operators agree before they sign, and what did they look at?"),
    ("AU-9(2)", "By which road did you get the pin, and who could have changed it on the way?"),
    ("AU-9(3)", "Who runs the witnesses, and can whoever runs the log also run them?"),
    ("SI-4", "Who is told when a sandbox drifts or a canary is missed, and when did that last happen?"),
    ("CM-6", "Why is each limit of each profile as high as it is?"),
    ("AC-6(7)", "When were the live grants last reviewed, and which were revoked?"),
    ("CA-8(2)", "What did you try that is not among these canaries?"),
)


def report_html(
    file: BinaryIO, pin: Pin | None, progress: Progress | None = None, controlled: Sequence[Controlled] = ()
) -> tuple[bytes, Report]:
    """The page as UTF-8, and the report that it shows. BundleBroken if the bundle is: there is nothing to show then.

    `controlled`: the positive controls of this release's canaries, which no log holds.
    """
    sound = read_bundle(file, pin, progress)
    report = judge(sound)
    chains = list(ladders(sound.history, sound.releases))
    ran = {start.says["runtime"] for start in sound.history.starts.values()}
    folder = resources.files("ironbound.evidence.report")
    style, check, show = ((folder / name).read_text("utf-8").strip() for name in ("style.css", "check.js", "show.js"))
    script = f"{check}\n{show}"
    data = canonical({"pin": str(pin) if pin else None, "report": report_value(report)}).decode()
    policy = (
        f"default-src 'none'; style-src '{_hash(style)}'; script-src '{_hash(script)}'; "
        "base-uri 'none'; form-action 'none'"
    )
    page = "".join(
        (
            '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n',
            f'<meta http-equiv="Content-Security-Policy" content="{policy}">\n',
            '<meta name="viewport" content="width=device-width, initial-scale=1">\n',
            '<meta name="referrer" content="no-referrer">\n',
            f"<title>Ironbound evidence: {escape(report.deployment)}</title>\n",
            f"<style>{style}</style>\n</head>\n<body>\n",
            *_body(report, chains, [one for one in controlled if one.runtime in ran]),
            f'<script type="application/json" id="said">{data.replace("<", chr(92) + "u003c")}</script>\n',
            f'<script type="application/octet-stream" id="log">{packed_log(Bundle(file), report.voids)}</script>\n',
            f"<script>{script}</script>\n</body>\n</html>\n",
        )
    )
    return page.encode("utf-8"), report


def _hash(text: str) -> str:
    return f"sha256-{b64encode(sha256(text.encode('utf-8')).digest()).decode()}"


# The log


def packed_log(bundle: Bundle, voids: Mapping[int, str]) -> str:
    """The log for the page: deflated JSON in base64, as much of it in full as MAX_LOG lets.

    `voids`: which entries have no effect for what they say, by the verifier; whose voice was none, the page finds.
    """
    tiles = sorted(map(parse_tile_path, (one for one in bundle.members if one.startswith("tile/entries/"))), key=_begin)
    entries = [data for tile in tiles for data in decode_entries(bundle.read(tile.path), tile.width)]
    kinds = [_kind(one) for one in entries]
    admitted = [data for kind, data in zip(kinds, entries, strict=True) if kind == "admitted"]
    signed = {digest: _entry(data) for digest, data in _signed(bundle, admitted)}
    log: dict[str, Any] = {
        "checkpoint": bundle.read("checkpoint").decode("utf-8"),
        "policy": bundle.read("witness-policy").decode("utf-8"),
        "void": {str(index): reason for index, reason in voids.items()},
    }
    dropped: set[str] = set()
    for more in (frozenset[str](), *_DROPPED):
        dropped |= more
        log["entries"] = [
            {"h": b64encode(leaf_hash(data)).decode()} if kind in dropped else _entry(data)
            for kind, data in zip(kinds, entries, strict=True)
        ]
        log["release"] = {} if _STATEMENTS in dropped else signed
        log["dropped"] = sorted(dropped & {*kinds, _STATEMENTS})
        squeezer = zlib.compressobj(9, zlib.DEFLATED, -15)
        packed = squeezer.compress(canonical(log)) + squeezer.flush()
        if len(packed) <= MAX_LOG:
            break
    return b64encode(packed).decode()


def _begin(tile: Tile) -> int:
    return tile.begin


def _kind(data: bytes) -> str:
    try:
        return str(parse_statement(parse_envelope(data).payload).kind)
    except FormatError:
        return ""


def _signed(bundle: Bundle, admitted: Iterable[bytes]) -> Iterator[tuple[str, bytes]]:
    """What release keys signed of the releases that humans asked for, by digest, as far as the bundle has it."""
    for data in admitted:
        said = parse_statement(parse_envelope(data).payload)
        try:
            asked = parse_statement(envelope_from_value(said.predicate["request"]).payload)
        except FormatError:
            continue
        if asked.kind == "release-approval":
            for digest in asked.predicate["body"]["statements"].values():
                name = f"artifacts/sha256/{digest}"
                if name in bundle.members:
                    yield digest, bundle.read(name)


def _entry(data: bytes) -> dict[str, Any]:
    """An entry so that the page can make its exact bytes again: the payload as text compresses, base64 doesn't."""
    try:
        small = len(data) <= MAX_ENVELOPE
        envelope = parse_envelope(data) if small else envelope_from_value(parse_canonical(data, limit=MAX_SIGNED))
        text = envelope.payload.decode("utf-8")
    except (FormatError, UnicodeDecodeError):
        return {"raw": b64encode(data).decode()}
    return {"p": text, "s": [[one.keyid, b64encode(one.sig).decode()] for one in envelope.signatures]}


# The page


def _body(report: Report, chains: list[Ladder], controlled: Sequence[Controlled]) -> Iterator[str]:
    refuted = [claim.id for claim in report.claims if claim.status == REFUTED]
    unproven = [claim.id for claim in report.claims if claim.status == UNPROVEN]
    held = len(report.claims) - len(refuted) - len(unproven)
    status = REFUTED if refuted else UNPROVEN if unproven else HOLDS
    verdict = {
        HOLDS: "Every claim holds",
        REFUTED: f"Refuted: {', '.join(refuted)}",
        UNPROVEN: f"Nothing refuted; unproven: {', '.join(unproven)}",
    }[status]
    yield f"""<header>
<p class="brand">Ironbound evidence</p>
<h1>{escape(report.deployment)}</h1>
<p class="verdict {status}"><strong>{escape(verdict)}</strong><span>{held} of {len(report.claims)} claims hold ·
exit code {report.exit_code}</span><span class="window">Environment {escape(report.environment)} · {report.size:,}
entries · {utc(report.first_ms)} to {utc(report.last_ms)} · {"pin matches" if report.pinned else "no pin"}</span></p>
{_glance(report.claims)}<section id="self" class="self" aria-live="polite"><h2>This page checks itself</h2>
<p id="self-says">Your browser has not checked it yet: that needs JavaScript and WebCrypto with Ed25519.</p>
<progress id="self-progress" max="1" value="0" aria-label="checking"></progress>
<div id="self-rows"></div>
<form id="pin-form"><label for="pin">The pin that reached you by another road</label>
<input id="pin" name="pin" autocomplete="off" spellcheck="false" placeholder="deployment:sha256:log key">
<button>Check against it</button></form></section>
</header>
<nav aria-label="Contents"><a href="#limits">Limits</a><a href="#scope">Scope</a><a href="#claims">Claims</a><a
href="#time">Timeline</a><a href="#grants">Grants</a><a href="#launches">Launches</a><a
href="#canaries">Canaries</a><a href="#reconciled">Reconciled</a><a href="#case">Case</a><a
href="#controls">Controls</a><a href="#questions">Questions</a></nav>
<main>
"""
    yield from _limits(report)
    yield from _scope(report)
    yield from _claims(report.claims)
    for place, title, about in (
        ("time", "Timeline", "Agents, grants, canaries and drift, by the times that the entries say."),
        ("grants", "Every grant", "The whole population, each with the humans who signed it."),
        ("launches", "Every launch", "From the humans who asked to the end that was seen."),
        (
            "canaries",
            "Canaries",
            "What hostile agents tried, in agents' own sandboxes, and what stopped them.",
        ),
        ("reconciled", "Reconciled", "Counts that must agree, told by different voices."),
    ):
        yield f'<section id="{place}"><h2>{title}</h2><p class="about">{about}</p><div id="{place}-here">'
        yield "<p>Drawn by your browser from the entries in this page; it needs JavaScript.</p></div>"
        if place == "launches":
            yield from _chains(chains)
        if place == "canaries":
            yield from _positive(controlled)
        yield "</section>\n"
    yield from case_section(report.claims, load_case())
    yield from _controls(report.claims)
    yield '<section id="questions"><h2>Questions for the interview</h2><dl>\n'
    for control, question in _QUESTIONS:
        yield f"<dt>{control}</dt><dd>{escape(question)}</dd>\n"
    yield "</dl></section>\n</main>\n"
    yield """<footer><p>Check it without this page:
<code>ironbound verify evidence.ironbound --pin "$(cat pin.txt)"</code>. The page and its own check come from whoever
made it. What ties them to the deployment is the pin alone.</p></footer>
"""


def _glance(claims: Iterable[Claim]) -> str:
    """Every claim's verdict in one line, by layer."""
    layers: dict[str, list[str]] = {}
    for claim in claims:
        said = claim.id if claim.status == HOLDS else f"{claim.id} {claim.status}"
        told = f'<a class="chip {claim.status}" href="#claim-{claim.id}" title="{escape(claim.says)}">{said}</a>'
        layers.setdefault(claim.id[0], []).append(told)
    shown = "\n".join(f"<span>{_LAYERS[layer]} {''.join(chips)}</span>" for layer, chips in layers.items())
    return f'<nav class="glance" aria-label="Claims">\n{shown}\n</nav>\n'


def _chains(chains: list[Ladder]) -> Iterator[str]:
    """The links of the latest launches of agents, and before them of those that have a broken one."""
    shown = sorted(chains, key=lambda one: (one.whole, -one.launch))[:MAX_CHAINS]
    broken = sum(not one.whole for one in chains)
    yield f"<h3>Chains from the release to the end</h3><p>By the verifier: {len(chains)} launches of agents, {broken} "
    yield f"of them with a broken link; {len(shown)} are here, all of them in <code>ironbound trace AGENT</code>.</p>\n"
    for one in shown:
        state = "whole" if one.whole else "broken"
        yield f"<details><summary>{escape(one.agent)}, entry {one.launch}: {state}</summary><ol>\n"
        for link in one.links:
            where = "" if link.index is None else f", entry {link.index}"
            wrong = "".join(
                f'<br><em class="{REFUTED if code in REFUTING else UNPROVEN}">{code}</em> '
                f"{escape(explain(code) or '')}; {escape(text)}"
                for code, text in link.broken
            )
            yield f"<li><b>{link.name}</b>{where}: {escape(link.text)}{wrong}</li>\n"
        yield "</ol></details>\n"


def _positive(controlled: Sequence[Controlled]) -> Iterator[str]:
    """What shows that a canary can bite: the tests' word, and said to be so."""
    yield "<h3>Positive controls</h3><p>A refusal counts for something only if the attempt could succeed. By the tests "
    yield "of the release that made this page, and not by this log, each canary was run once more with its wall taken "
    yield "away, and got out.</p>\n"
    for one in controlled:
        seen = f"{one.probes - len(one.without)} of {one.probes} canaries got out in their control"
        yield f"<details><summary>{escape(one.runtime)}: {seen}</summary><p>{escape(one.how)}.</p>"
        if one.without:
            rows = "".join(f"<dt>{escape(name)}</dt><dd>{escape(why)}</dd>" for name, why in one.without.items())
            yield f"<p>Without a control, so that they are refused proves less:</p><dl>{rows}</dl>"
        yield "</details>\n"


def _limits(report: Report) -> Iterator[str]:
    yield '<section id="limits"><h2>What this does not prove</h2><ul>\n'
    if not report.pinned:
        yield "<li><strong>No pin was given</strong>: this may be the log of another deployment.</li>\n"
    if report.environment != PRODUCTION:
        yield f"<li>Anything about production: this is the environment {escape(report.environment)}.</li>\n"
    for claim in report.claims:
        if claim.status != HOLDS:
            reasons = "; ".join(explain(one.code) or one.code for one in claim.reasons)
            yield (
                f'<li><a href="#claim-{claim.id}">{claim.id}</a> <em class="{claim.status}">{claim.status}</em>: '
                f"{escape(reasons)}</li>\n"
            )
    for claim in report.claims:
        for remark in claim.remarks:
            yield f'<li><a href="#claim-{claim.id}">{claim.id}</a> {escape(remark)}</li>\n'
    yield "<li>What happened after the last entry, and on hosts that are not enrolled here.</li>\n</ul></section>\n"


def _scope(report: Report) -> Iterator[str]:
    kinds = ", ".join(f"{kind} {count}" for kind, count in report.said.items())
    rows = (
        ("Log", report.origin),
        ("Entries", f"0 to {report.size - 1}, {report.void} without effect"),
        ("Root", report.root.hex()),
        ("Witnessed by", ", ".join(report.witnesses) or "nobody"),
        ("Period", f"{utc(report.first_ms)} to {utc(report.last_ms)}"),
        ("As of", utc(report.as_of_ms)),
        ("Environment", report.environment),
        ("Separation", f"by {report.separation}"),
        ("Pin", f"{report.pin}" + (" (matches)" if report.pinned else " (of this log; none was given)")),
        ("Kinds", kinds),
    )
    yield '<section id="scope"><h2>Scope and window</h2><dl class="facts">\n'
    for name, value in rows:
        yield f"<dt>{name}</dt><dd>{escape(value)}</dd>\n"
    yield "</dl></section>\n"


def _claims(claims: Iterable[Claim]) -> Iterator[str]:
    yield '<section id="claims"><h2>Claims, from the inside out</h2>\n'
    layer = ""
    for claim in claims:
        if claim.id[0] != layer:
            layer = claim.id[0]
            yield f"<h3>{_LAYERS[layer]}</h3>\n"
        yield (
            f'<article id="claim-{claim.id}" class="claim {claim.status}"><h4><span class="id">{claim.id}</span> '
            f'{escape(claim.says)}<span class="status">{claim.status}</span></h4>\n'
        )
        for reason in claim.reasons:
            more = f" … {reason.total} in all" if reason.total > len(reason.indexes) else ""
            where = f" Entries {', '.join(map(str, reason.indexes))}{more}." if reason.indexes else ""
            means = escape(explain(reason.code) or "")
            yield f"<p><code>{reason.code}</code> {means}. {escape(reason.text)}{where}</p>\n"
        if claim.counts:
            counts = "".join(f"<li><b>{count:,}</b> {escape(what)}</li>" for what, count in claim.counts.items())
            yield f'<ul class="counts">{counts}</ul>\n'
        yield f'<p class="controls">{" ".join(claim.controls)}</p></article>\n'
    yield "</section>\n"


def _controls(claims: Iterable[Claim]) -> Iterator[str]:
    statuses = {claim.id: claim.status for claim in claims}
    serving: dict[str, list[str]] = {}
    for claim, (_, served) in CLAIMS.items():
        for control in served:
            serving.setdefault(control, []).append(claim)
    yield '<section id="controls"><h2>Controls</h2><p class="about">NIST SP 800-53 revision 5. A control is served by'
    yield " claims; whether it is satisfied is the assessor's word.</p>\n<table><thead><tr><th>Control</th>"
    yield "<th>Title</th><th>Claims</th></tr></thead><tbody>\n"
    titles = {one.name: one.title for one in controls().values()}
    for control in sorted(serving, key=_control_order):
        cells = " ".join(
            f'<a class="chip {statuses[one]}" href="#claim-{one}">{one} {statuses[one]}</a>'
            for one in serving[control]
            if one in statuses
        )
        yield f"<tr><th scope=row>{control}</th><td>{escape(titles[control])}</td><td>{cells}</td></tr>\n"
    yield "</tbody></table></section>\n"


def _control_order(control: str) -> tuple[str, int, int]:
    family, _, rest = control.partition("-")
    number, _, enhancement = rest.partition("(")
    return family, int(number), int(enhancement.rstrip(")") or 0)
