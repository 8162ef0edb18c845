"""`ironbound scan`: what an artefact takes from outside, against a closed list, and the switches in it.

Decides nothing: `supply/scan.py` does. Names come from what was scanned, which may be hostile: whatever is not plain
ASCII is escaped.

Exit codes: 0 nothing unlisted, and no switch that is active and unexplained; 1 there is; 2 usage; 4 there is not, but
something could not be read.
"""

from __future__ import annotations

import argparse
import time
from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final

import ironbound
from ironbound.core.canonical import FormatError
from ironbound.supply.scan import ABSENT, ACTIVE, Report, Switch, document, judge, scan
from ironbound.supply.scan_found import SURFACE, Binary, Found
from ironbound.supply.scan_list import MAX_LIST, SurfaceList, parse_list, shipped_list, write_list
from ironbound.supply.scan_trial import TrialError, try_options
from ironbound.terminal.arguments import JSON, Command, option
from ironbound.terminal.voice import FAILED, OK, UNPROVEN, Stop, emit, note, paint, plain, say, usage
from ironbound.wire.deployment import read_file
from ironbound.wire.images import ImageRefused

#: Seconds between two lines about progress.
TELL_S: Final = 3.0
_MOST: Final = 20
"""Lines of one list; the rest are counted."""
_OWN: Final = "ironbound/"


class _Progress:
    """A line every few seconds."""

    def __init__(self) -> None:
        self.last = time.monotonic()

    def __call__(self, done: int, total: int) -> None:
        if (now := time.monotonic()) - self.last >= TELL_S:
            self.last = now
            note(f"{done:,} of {total:,} files")


def _listed(arguments: argparse.Namespace, found: Iterable[Found]) -> SurfaceList | None:
    """The list to compare with: the one that was given, or this release's for an installation of ours."""
    if arguments.manifest is not None:
        try:
            return parse_list(read_file(arguments.manifest, MAX_LIST))
        except FormatError as error:
            raise Stop(f"{arguments.manifest}: {error}", "a list is written with --write, see --help") from error
    if any(one.where == f"{_OWN}__init__.py" or one.where.startswith(f"{_OWN}core/") for one in found):
        note("compared with the list that this very installation ships; give another with --manifest FILE")
        return parse_list(shipped_list())
    return None


def _lines(head: str, lines: list[str]) -> None:
    say(paint(head, "bold"))
    for line in lines[:_MOST]:
        say(f"  {line}")
    if len(lines) > _MOST:
        say(f"  … and {len(lines) - _MOST:,} more (--json has them all)")


def _switch(one: Switch) -> str:
    first = one.places[0]
    more = f" and {len(one.places) - 1} more" if len(one.places) > 1 else ""
    said = "" if one.refusal is None else f": {plain(one.refusal)}"
    return f"{one.verdict}  {plain(one.name)}  ({first.kind}, {one.rule})  {plain(first.place)}{more}{said}"


def _show(report: Report, seconds: float) -> None:
    open_switches = [one for one in report.switches if one.why is None]
    explained = [one for one in report.switches if one.why is not None]
    colour = {ABSENT: "green", ACTIVE: "red"}.get(report.verdict, "yellow")
    counts = Counter(one.verdict for one in open_switches)
    said = ", ".join(f"{count} {verdict}" for verdict, count in sorted(counts.items())) or "no switch"
    say(f"{paint(report.verdict, 'bold', colour)}  {said}{' unexplained' if explained else ''}: {plain(report.path)}")
    if report.unlisted is None:
        say("closed list: none was given, so nothing was compared; --write makes one")
    elif report.unlisted:
        rows = [f"{one.kind}  {plain(one.name)}  {plain(one.place)}" for one in report.unlisted]
        _lines(f"closed list: OPEN, {len(rows):,} not listed", rows)
    else:
        rest = f"; {report.beyond:,} items are of files that it is not about" if report.beyond else ""
        gone = f"; {len(report.gone):,} listed and not there" if report.gone else ""
        say(f"closed list: CLOSED{gone}{rest}")
    if open_switches:
        _lines("switches", [_switch(one) for one in open_switches])
    if explained:
        places = Counter(one.why or "" for one in explained)
        tried = sum(one.refusal is not None for one in explained)
        also = f", {tried:,} of them tried and refused" if tried else ""
        _lines(f"explained by the list: {len(explained):,}{also}", [f"{count}: {why}" for why, count in places.items()])
    if report.scanned.unread:
        unread = sorted({(one.why, one.file) for one in report.scanned.unread})
        _lines(f"not read: {len(unread):,}", [f"{plain(file)}: {plain(why)}" for why, file in unread])
    weak = [one for one in report.scanned.binaries if not one.no_exec_stack or one.pie is False or one.relro == "none"]
    if weak:
        _lines("weakly hardened", [f"{plain(one.file)}: {_flaws(one)}" for one in weak])
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in sorted(report.scanned.kinds.items()))
    items = sum(one.kind in SURFACE for one in report.scanned.found)
    say(f"read in {seconds:.1f} s: {kinds}; {items:,} items of surface (--json has them all)")


def _flaws(one: Binary) -> str:
    flaws = {
        "no PIE": one.pie is False,
        "executable stack": not one.no_exec_stack,
        "no RELRO": one.relro == "none",
    }
    return ", ".join(flaw for flaw, found in flaws.items() if found)


def _run(arguments: argparse.Namespace) -> int:
    path: Path = arguments.path
    if arguments.write is not None and arguments.manifest is not None:
        usage("--write makes a list, --manifest compares with one: give one of them", "see --help")
    began = time.monotonic()
    try:
        scanned = scan(path, _Progress())
    except ImageRefused as error:
        raise Stop(f"{path}: {error.cause}", error.hint) from error
    if arguments.write is not None:
        return _write(arguments.write, path, scanned.found)
    listed = _listed(arguments, scanned.found)

    def refused(names: Iterable[str]) -> Mapping[str, str | None]:
        wanted = list(names)
        if arguments.program is None or not wanted:
            return {}
        note(f"trying {len(wanted)} options against {arguments.program}")
        try:
            return try_options(arguments.program.resolve(), wanted, note)
        except TrialError as error:
            raise Stop(str(error), "nothing follows from such a program; leave --try out") from error

    report = judge(str(path), scanned, listed, refused)
    if arguments.json:
        emit(document(report))
    else:
        _show(report, time.monotonic() - began)
    if report.verdict == ACTIVE or report.unlisted:
        return FAILED
    return OK if report.complete else UNPROVEN


def _write(into: Path, path: Path, found: Iterable[Found]) -> int:
    before = into.read_bytes() if into.is_file() else None
    product, below = path.resolve().name, [""]
    if before is not None:
        kept = parse_list(before)
        product, below = kept.product, list(kept.below)
    data = write_list(product, below, found, before)
    into.write_bytes(data)
    say(f"{into}: {len(parse_list(data).items):,} items; read it, explain its switches, and sign it")
    return OK


COMMANDS: Final = (
    Command(
        "scan",
        _run,
        "What a product takes from outside, compared with a closed list, and the switches in it by which checks go "
        "away. PATH is a folder, an installation, a file, a wheel or another archive, a container's root file system "
        "or an OCI image layout. Nothing of it is run, unless --try says so. Exit code: 0 nothing unlisted and no "
        "switch active; 1 there is; 2 usage; 4 there is not, but not all could be read.",
        "ironbound scan /opt/product --manifest product.json",
        (
            option("path", type=Path, nargs="?", default=Path(ironbound.__file__).parent, metavar="PATH",
                   help="what to scan; without it, this very installation"),
            option("--manifest", type=Path, metavar="FILE", help="the closed list; for our own: the one shipped"),
            option("--write", type=Path, metavar="FILE", help="write the list of what is there; keeps its reasons"),
            option("--try", dest="program", type=Path, metavar="PROGRAM",
                   help="start this program with each option found: what it refuses is PRESENT-REFUSES"),
            JSON,
        ),
    ),
)  # fmt: skip
