"""`ironbound canary run`, `evidence export`, `verify` and `demo`: proofs, and everything that makes them."""

from __future__ import annotations

import argparse
import hashlib
import time
import uuid
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

from ironbound.canary.probes import controlled
from ironbound.core.trust import parse_pin
from ironbound.terminal.arguments import JSON, PLACED, Command, deployment_of, option
from ironbound.terminal.voice import BROKEN, OK, Stop, emit, note, paint, say, usage

if TYPE_CHECKING:
    from ironbound.evidence.oscal.controls import Plan
    from ironbound.verifier.verify import Report


def _canary_run(arguments: argparse.Namespace) -> int:
    from ironbound.terminal.canaries import run_all

    return run_all(deployment_of(arguments), arguments.json, arguments.every, arguments.profile)


def _export(arguments: argparse.Namespace) -> int:
    from ironbound.evidence.export import ExportError, export
    from ironbound.verifier.output import tenths

    deployment = deployment_of(arguments)
    if arguments.out.is_dir():
        usage(f"{arguments.out} is a folder", "give -o a file")
    try:
        summary = export(deployment, arguments.out.resolve(), tenths(note))
    except ExportError as error:
        raise Stop(str(error)) from error
    missing = [{"sha256": one.sha256, "what": one.what} for one in summary.missing]
    if arguments.json:
        emit({"file": str(arguments.out), "bytes": summary.file_bytes, "entries": summary.entries, "missing": missing})
    else:
        say(f"evidence   {arguments.out} ({summary.file_bytes:,} bytes, {summary.entries} entries)")
        for one in missing:
            say(paint(f"missing    {one['what']} {one['sha256']}", "yellow"))
    return OK


def _report(arguments: argparse.Namespace) -> int:
    from ironbound.evidence.report.build import report_html
    from ironbound.verifier.bundle import BundleBroken
    from ironbound.verifier.output import tenths
    from ironbound.verifier.verify import verify_bundle

    if arguments.out is None and arguments.oscal is None:
        usage("what to write: -o FILE for people, --oscal DIR for programs, or both")
    if arguments.controls is not None and arguments.oscal is None:
        usage("--controls goes with --oscal")
    plan = None if arguments.oscal is None else _plan(arguments.controls)
    pin = None if arguments.pin is None else parse_pin(arguments.pin)
    said: dict[str, object] = {}
    try:
        with open(arguments.bundle, "rb") as file:
            if arguments.out is None:
                report = verify_bundle(file, pin, tenths(note))
            else:
                page, report = report_html(file, pin, tenths(note), controlled())
                arguments.out.write_bytes(page)
                said |= {"file": str(arguments.out), "bytes": len(page)}
            if plan is not None:
                _oscal(report, plan, file, arguments.bundle.name, arguments.oscal)
                said["oscal"] = str(arguments.oscal)
    except BundleBroken as broken:
        raise Stop(f"the bundle's integrity is broken: {broken}", "nothing in it counts", BROKEN) from broken
    if arguments.json:
        emit({**said, "entries": report.size, "exit": report.exit_code})
        return OK
    if "file" in said:
        say(f"report     {said['file']} ({said['bytes']:,} bytes); open it in a browser, it checks itself there")
    if "oscal" in said:
        say(f"oscal      {said['oscal']}: component definition, assessment plan and results, matrix.csv")
    return OK


def _plan(path: Path | None) -> Plan:
    from ironbound.evidence.oscal.controls import MapRefused, organisations_plan, own_plan

    try:
        return own_plan() if path is None else organisations_plan(path)
    except MapRefused as error:
        raise Stop(str(error)) from error


def _oscal(report: Report, plan: Plan, bundle: BinaryIO, name: str, folder: Path) -> None:
    """The files, each whole or not at all, beside each other in one folder."""
    from ironbound.evidence.oscal.write import oscal_files

    digest = hashlib.sha256()
    bundle.seek(0)
    while data := bundle.read(1 << 20):
        digest.update(data)
    files = oscal_files(report, plan, name, digest.hexdigest(), time.time_ns() // 1_000_000, lambda: str(uuid.uuid4()))
    folder.mkdir(parents=True, exist_ok=True)
    for file, data in files.items():
        part = folder / f".{file}.part"
        part.write_bytes(data)
        part.replace(folder / file)


def _verify(arguments: argparse.Namespace) -> int:
    raise Stop("verify takes its own arguments")  # main hands them to the verifier before they are parsed


def _demo(arguments: argparse.Namespace) -> int:
    from ironbound.terminal.demo.run import demo

    return demo(arguments.out, arguments.org, arguments.release)


COMMANDS: Final = (
    Command(
        "canary run",
        _canary_run,
        "Every probe, now, for real.",
        "ironbound canary run --all",
        PLACED,
        either=(
            option("--all", dest="every", action="store_true", help="on every approved profile (default: in use)"),
            option("--profile", metavar="NAME", help="on this approved profile"),
        ),
    ),
    Command(
        "evidence export",
        _export,
        "Write everything that an auditor needs into one file.",
        "ironbound evidence export -d prod -o e.ironbound",
        (*PLACED, option("-o", "--out", type=Path, required=True, metavar="FILE")),
    ),
    Command(
        "evidence report",
        _report,
        "Write what the evidence shows: as one HTML file that checks itself in the reader's browser, and as OSCAL.",
        'ironbound evidence report e.ironbound --pin "$(cat pin.txt)" -o report.html',
        (
            option("bundle", type=Path, metavar="BUNDLE"),
            option("--pin", metavar="PIN", help="deployment, trust root and log key, as they reached you"),
            option("-o", "--out", type=Path, metavar="FILE", help="the page"),
            option("--oscal", type=Path, metavar="DIR", help="OSCAL 1.1.3 and matrix.csv into this folder"),
            option("--controls", type=Path, metavar="FILE", help="controls.toml: claims to your security plan's ids"),
            JSON,
        ),
    ),
    Command("verify", _verify, "Check an evidence file.", 'ironbound verify e.ironbound --pin "$(cat pin.txt)"'),
    Command(
        "demo",
        _demo,
        "Everything, for real, in a minute.",
        "ironbound demo --org --out /tmp/demo",
        (
            option("--out", type=Path, metavar="DIR", help="keep evidence, pin and deployment there"),
            option("--org", action="store_true", help="its operators sign with passkeys, in headless Chromium"),
            option(
                "--release",
                type=Path,
                metavar="DIR",
                help="the release that is installed here, as `./dev release` made it",
            ),
        ),
    ),
)
