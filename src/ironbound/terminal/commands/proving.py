"""`ironbound prove`: the proof that no agent can raise its own privileges, from the kernel that is installed here."""

from __future__ import annotations

import argparse
import asyncio
import textwrap
from pathlib import Path
from typing import Any, Final

from ironbound.core.authority import RULES
from ironbound.proof.prove import ProofBroken, prove
from ironbound.proof.solvers import SOLVERS, installed
from ironbound.terminal.arguments import JSON, Command, deployment_of, option
from ironbound.terminal.voice import FAILED, OK, Stop, emit, note, paint, say
from ironbound.wire.deployment import Deployment
from ironbound.wire.frames import receive_frame, send_frame


async def say_proof(deployment: Deployment) -> tuple[int, dict[str, Any]]:
    """The entry in which the monitor says the proof that it made of its own kernel, and the proof. Stop if it can't."""
    try:
        reader, writer = await asyncio.open_unix_connection(deployment.socket("monitor"))
    except OSError as error:
        raise Stop(f"the monitor does not answer: {error.strerror}", f"`ironbound up -d {deployment.root}`") from error
    try:
        await send_frame(writer, {"op": "prove"})
        frame: Any = await receive_frame(reader)
    finally:
        writer.close()
    if frame is None or frame.get("ok") is not True:
        why = "" if frame is None else f": {frame.get('message') or frame.get('code')}"
        raise Stop(f"the monitor said no proof{why}", "its log says why: logs/monitor.log")
    return int(frame["index"]), dict(frame["said"])


def _prove(arguments: argparse.Namespace) -> int:
    index, searched = None, None
    if arguments.out is not None:
        arguments.out.mkdir(parents=True, exist_ok=True)
    if arguments.deployment is not None:
        note("the monitor asks the solvers about its kernel")
        index, said = asyncio.run(say_proof(deployment_of(arguments)))
        holds = not any(one["failed"] for one in said["verdicts"])
    if arguments.deployment is None or arguments.out is not None:
        note(f"asking {' and '.join(installed())}, and searching small worlds")
        try:
            proof = prove(note)
        except ProofBroken as error:
            raise Stop(str(error)) from error
        searched = proof.search
        if index is None:
            said, holds = proof.predicate, proof.holds
        if arguments.out is not None:
            for script in proof.scripts:
                (arguments.out / f"{script.name}.smt2").write_text(script.text, "utf-8")
            note(f"{len(proof.scripts)} files in {arguments.out}; any solver of SMT-LIB 2.6 reads them")
    if arguments.json:
        emit(said | {"holds": holds, "entry": index, "search": searched})
        return OK if holds else FAILED
    say(f"kernel     {said['kernel_sha256']}")
    say(f"questions  {said['scripts_sha256']}: {said['obligations']} obligations, {said['rules']} rules")
    for one in said["verdicts"]:
        possible = f", {one['possible']} rules can happen" if one["possible"] else ""
        took = f"({one['took_ms']:,} ms, version {one['version']})"
        say(f"{one['solver']:<10} {one['held']} hold, {one['failed']} fail{possible} {took}")
        for text in one["named"]:
            say(paint(f"           {text}", "red"))
    for name in SOLVERS:
        if name not in {one["solver"] for one in said["verdicts"]}:
            say(paint(f"{name:<10} not asked: it is not installed", "yellow"))
    if searched is not None:
        _say_search(searched)
    if index is not None:
        say(f"entry      {index}, said by the monitor")
    say(
        paint(
            "no message of an agent raises anybody's privileges" if holds else "NOT PROVED", "green" if holds else "red"
        )
    )
    return OK if holds else FAILED


def _say_search(searched: dict[str, Any]) -> None:
    left = "exhausted" if searched["exhausted"] else "NOT exhausted"
    say(f"search     {searched['states']:,} states, {searched['tried']:,} messages, {left}; let through:")
    counts = [f"{rule} {times:,}" for rule, times in searched["fired"].items()]
    for line in textwrap.wrap(" · ".join(counts), 100, break_on_hyphens=False):
        say(f"           {line}")
    for rule in (rule for rule in RULES if rule not in searched["fired"]):
        say(paint(f"           {rule} let nothing through", "red"))
    if searched["found"] is not None:
        what, history = searched["found"]
        say(paint(f"           {what}, after {'; '.join(history)}", "red"))


COMMANDS: Final = (
    Command(
        "prove",
        _prove,
        "The non-escalation proof, from the installed kernel; with -d the monitor makes it and says it in the log.",
        "ironbound prove -d prod",
        (
            option("-d", "--deployment", type=Path, metavar="DIR", help="whose monitor is to say it in the log"),
            option("--out", type=Path, metavar="DIR", help="write the SMT-LIB files there, for a solver of your own"),
            JSON,
        ),
    ),
)
