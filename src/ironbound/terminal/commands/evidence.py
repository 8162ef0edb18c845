"""`ironbound canary run`, `evidence export`, `verify` and `demo`: proofs, and everything that makes them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from ironbound.terminal.arguments import PLACED, Command, deployment_of, option
from ironbound.terminal.voice import OK, Stop, emit, note, paint, say


def _canary_run(arguments: argparse.Namespace) -> int:
    from ironbound.terminal.canaries import run_all

    return run_all(deployment_of(arguments), arguments.json, arguments.every, arguments.profile)


def _export(arguments: argparse.Namespace) -> int:
    from ironbound.evidence.export import ExportError, export

    deployment = deployment_of(arguments)
    last = 0

    def progress(done: int, total: int) -> None:
        nonlocal last
        if total > 5000 and done * 10 // total > last:
            last = done * 10 // total
            note(f"{done:,} of {total:,} entries")

    try:
        summary = export(deployment, arguments.out.resolve(), progress)
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


def _verify(arguments: argparse.Namespace) -> int:
    raise Stop("verify takes its own arguments")  # main hands them to the verifier before they are parsed


def _demo(arguments: argparse.Namespace) -> int:
    from ironbound.terminal.demo.run import demo

    return demo(arguments.out)


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
        "Write the file.",
        "ironbound evidence export -d prod -o e.ironbound",
        (*PLACED, option("-o", "--out", type=Path, required=True, metavar="FILE")),
    ),
    Command("verify", _verify, "Check an evidence file.", 'ironbound verify e.ironbound --pin "$(cat pin.txt)"'),
    Command(
        "demo",
        _demo,
        "Everything, for real, in a minute.",
        "ironbound demo --out /tmp/demo",
        (option("--out", type=Path, metavar="DIR", help="keep evidence, pin and deployment there"),),
    ),
)
