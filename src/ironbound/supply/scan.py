"""`ironbound scan`: what an artefact offers, beside what it may offer, and the switches in it by which checks go away.

Decides the verdict. First the closed list: every item of the surface that it doesn't name. Then the words: every name
or setting that meets a rule of `scan_words.py` is a switch, and a switch is

    ABSENT           no such name was found
    PRESENT-REFUSES  it is an option, and the shipped entry point refused it as it refuses an option that nobody has
    PRESENT-ACTIVE   it is there, and nothing showed that it is refused

Rule 1: nothing is rounded up. What was not tried is active; what was not read is said, and never counts as clean.
Rule 2: a switch that the list explains is shown with its reason, and counted apart.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from ironbound.wire.oci import is_layout, opened_layout

from .scan_files import Job, Scanned, Tell, import_path, jobs_of, read_all
from .scan_found import SURFACE, Found, Sink, Unread
from .scan_list import Item, SurfaceList, item, items
from .scan_text import scan_config

ABSENT: Final = "ABSENT"
REFUSES: Final = "PRESENT-REFUSES"
ACTIVE: Final = "PRESENT-ACTIVE"
FORMAT: Final = "ironbound-scan/v1"


@dataclass(frozen=True, slots=True)
class Switch:
    """One name, with everywhere that it stands. `why`: the list's reason, if it explains each of the places. `refusal`:
    the words in which the shipped entry point refused it, if it was tried."""

    name: str
    rule: str
    verdict: str
    why: str | None
    places: tuple[Found, ...]
    refusal: str | None = None


@dataclass(frozen=True, slots=True)
class Report:
    """What a scan says. `unlisted` and `gone` are None without a list to compare with."""

    path: str
    scanned: Scanned
    switches: tuple[Switch, ...]
    unlisted: tuple[Found, ...] | None
    gone: tuple[Item, ...] | None
    beyond: int
    """Items that the list is not about."""

    @property
    def verdict(self) -> str:
        """The worst of all switches that no list explains."""
        verdicts = {one.verdict for one in self.switches if one.why is None}
        return ACTIVE if ACTIVE in verdicts else REFUSES if REFUSES in verdicts else ABSENT

    @property
    def complete(self) -> bool:
        """Whether everything was read."""
        return not self.scanned.unread


def scan(path: Path, tell: Tell = lambda done, total: None) -> Scanned:
    """What a file, folder, archive, root file system or OCI layout has. OSError, ImageRefused."""
    if path.is_dir() and is_layout(path):
        with tempfile.TemporaryDirectory(prefix="ironbound-scan-") as place:
            jobs, extra = _image(path, Path(place))
            done = read_all(jobs, tell)
            done.take(extra)
            return done
    path.stat()
    jobs, unread = jobs_of(path)
    done = read_all(jobs, tell)
    done.unread += unread
    return done


def _image(layout: Path, place: Path) -> tuple[list[Job], Scanned]:
    """The files of an image's merged layers, written under numbers, and what its configuration has."""
    jobs: list[Job] = []
    with opened_layout(layout, place) as (pieces, config):
        sink = Sink("image configuration", "image configuration")
        scan_config("\n".join((*config.env, *(f"argument: {one}" for one in config.argv))).encode(), sink)
        for piece in pieces:
            if piece.chunks is None:
                continue
            file = place / str(len(jobs))
            with file.open("wb") as into:
                for chunk in piece.chunks:
                    into.write(chunk)
            mode = 0o4755 if piece.raised else 0o755
            jobs.append(Job(str(file), piece.path, import_path(piece.path), file.stat().st_size, mode))
    return jobs, Scanned(sink.found, list[Unread](), [], {"configuration": 1})


def judge(
    path: str,
    scanned: Scanned,
    listed: SurfaceList | None = None,
    refused: Callable[[Iterable[str]], Mapping[str, str | None]] = lambda names: {},
) -> Report:
    """The report. `refused` gives of each option the words in which the shipped entry point refused it, None if it took
    it; those it leaves out were not tried."""
    by_name: dict[tuple[str, str], list[Found]] = {}
    for one in sorted(scanned.found):
        if one.rule:
            by_name.setdefault((one.rule, one.name), []).append(one)
    options = sorted({name for (_, name), places in by_name.items() if _is_option(places)})
    answers = refused(options)
    switches = []
    for (rule, name), places in by_name.items():
        reasons = [listed.why(one) if listed else None for one in places]
        explained = tuple(one for one, why in zip(places, reasons, strict=True) if why is not None)
        rest = tuple(one for one, why in zip(places, reasons, strict=True) if why is None)
        refusal = answers.get(name) if _is_option(places) else None
        verdict = ACTIVE if refusal is None else REFUSES
        for part, why in ((rest, None), (explained, next((one for one in reasons if one is not None), None))):
            if part:
                switches.append(Switch(name, rule, verdict, why, part, refusal))
    switches.sort(key=lambda one: (one.why is not None, one.verdict, one.name))
    if listed is None:
        return Report(path, scanned, tuple(switches), None, None, 0)
    surface = [one for one in sorted(scanned.found) if one.kind in SURFACE]
    about = [one for one in surface if listed.covers(one.where)]
    unlisted = tuple(one for one in about if item(one) not in listed.items)
    gone = tuple(sorted(listed.items - items(about)))
    return Report(path, scanned, tuple(switches), unlisted, gone, len(items(surface)) - len(items(about)))


def _is_option(places: Iterable[Found]) -> bool:
    return all(one.kind in ("option", "argument") for one in places)


def document(report: Report) -> dict[str, Any]:
    """The report as JSON values; the same bytes for the same artefact."""
    return {
        "format": FORMAT,
        "path": report.path,
        "verdict": report.verdict,
        "complete": report.complete,
        "closed": None if report.unlisted is None else not report.unlisted,
        "switches": [
            {"name": one.name, "rule": one.rule, "verdict": one.verdict, "why": one.why, "refusal": one.refusal,
             "places": [{"place": at.place, "kind": at.kind} for at in one.places]}
            for one in report.switches
        ],
        "unlisted": None if report.unlisted is None else [_row(one) for one in report.unlisted],
        "gone": None if report.gone is None else [{"file": file, "kind": kind, "name": name}
                                                  for file, kind, name in report.gone],
        "surface": [_row(one) for one in sorted(report.scanned.found) if one.kind in SURFACE],
        "binaries": [
            {"file": one.file, "pie": one.pie, "no_exec_stack": one.no_exec_stack, "relro": one.relro,
             "canary": one.canary, "fortify": one.fortify, "rpath": one.rpath, "stripped": one.stripped}
            for one in sorted(report.scanned.binaries, key=lambda one: one.file)
        ],
        "unread": [{"file": one.file, "why": one.why}
                   for one in sorted(report.scanned.unread, key=lambda one: (one.file, one.why))],
        "files": dict(sorted(report.scanned.kinds.items())),
    }  # fmt: skip


def _row(one: Found) -> dict[str, str]:
    return {"kind": one.kind, "name": one.name, "place": one.place}
