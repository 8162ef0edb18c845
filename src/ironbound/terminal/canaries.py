"""The canaries for operators: which of them a deployment needs approved, and `ironbound canary run`, which asks the
monitor to run them now and shows the results as they come."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from ironbound.canary.probes import load_probes
from ironbound.core.canonical import FormatError, sha256_hex
from ironbound.core.native import Manifest
from ironbound.core.profile import WASM, family_of, parse_configuration
from ironbound.core.replay import Replay
from ironbound.core.tree import PROGRAM_MODE
from ironbound.node.native.container import guard_bytes
from ironbound.wire.deployment import Deployment
from ironbound.wire.frames import receive_frame, send_frame
from ironbound.wire.image_load import Piece, load

from .voice import FAILED, OK, Stop, emit, note, paint, say

_STYLES = {"REFUSED": "green", "ESCAPED": "red", "INCONCLUSIVE": "yellow"}


def needed(deployment: Deployment, replay: Replay) -> list[tuple[dict[str, Any], bytes]]:
    """Document and module of every shipped canary that no approval names yet, for the families of approved profiles.

    Wasm canaries are always among them. The native ones share one image, which is loaded here.
    """
    configs = [parse_configuration(deployment.artifact(digest)) for digest in replay.books.profiles]
    found = [(probe.document, probe.module) for probe in load_probes("wasm")]
    if any(family_of(config) != WASM for config in configs):
        native = load_probes("native")
        pieces = [Piece(f"{native[0].document['module']}", PROGRAM_MODE, chunks=(native[0].module,))]
        rootfs = load(deployment, pieces, guard_bytes()).digest
        found += [(one.document, Manifest(rootfs, ("/probe", one.name)).encode()) for one in native]
    return [(document, module) for document, module in found if sha256_hex(module) not in replay.books.modules]


async def challenge_all(
    deployment: Deployment,
    report: Callable[[dict[str, Any], int], None],
    every: bool = False,
    profile: str | None = None,
) -> list[dict[str, Any]]:
    """Every result, each reported with the total as it comes. Stop if the monitor breaks off.

    Which configurations: those in use, with `every` all approved ones, with `profile` those of that name.
    """
    try:
        reader, writer = await asyncio.open_unix_connection(deployment.socket("monitor"))
    except OSError as error:
        raise Stop(f"the monitor does not answer: {error.strerror}", f"`ironbound up -d {deployment.root}`") from error
    results: list[dict[str, Any]] = []
    try:
        await send_frame(writer, {"op": "canary-run", "every": every, "profile": profile})
        total = 0
        while True:
            frame: Any = await receive_frame(reader)
            if frame is None or frame.get("ok") is not True:
                raise Stop("the monitor broke off before every canary had run", "its log says why: logs/monitor.log")
            if frame.get("done") is True:
                return results
            if "total" in frame:
                total = frame["total"]
            else:
                result = dict(frame["result"])
                results.append(result)
                report(result, total)
    except (OSError, FormatError) as error:
        raise Stop(f"the monitor: {error}") from error
    finally:
        writer.close()


def summary(results: Sequence[dict[str, Any]]) -> list[str]:
    """For each runtime and profile how many of how many were refused; what was not is counted apart."""
    counts: dict[tuple[str, str], Counter[str]] = {}
    for one in results:
        counts.setdefault((one["runtime"], one["profile"]), Counter())[one["verdict"]] += 1
    lines = []
    for (runtime, profile), counted in sorted(counts.items()):
        line = f"{runtime:<14} {profile:<20} {counted['REFUSED']} of {counted.total()} refused"
        for verdict in ("ESCAPED", "INCONCLUSIVE"):
            if counted[verdict]:
                line += f", {paint(f'{counted[verdict]} {verdict}', _STYLES[verdict])}"
        lines.append(line)
    return lines


def run_all(deployment: Deployment, as_json: bool, every: bool, profile: str | None) -> int:
    """Run them; exit 0 only if there were any and every one was REFUSED."""
    done = 0

    def report(result: dict[str, Any], total: int) -> None:
        nonlocal done
        done += 1
        if as_json:
            note(f"{done}/{total} {result['name']}")
        else:
            word = paint(result["verdict"], _STYLES[result["verdict"]])
            where = f"{result['runtime']} {result['profile']}"
            words = (result["refusal"].splitlines() or [""])[0][:80]
            say(f"{done:>3}/{total}  {word:<12}  {where:<20} {result['name']:<22} {words}")

    results = asyncio.run(challenge_all(deployment, report, every, profile))
    if as_json:
        emit({"probes": results})
    else:
        for line in summary(results):
            say(line)
    if not results:
        text = "no approved profile has a canary" if profile is None else f"no approved profile {profile} has a canary"
        raise Stop(text, "`ironbound approve canaries` first")
    return OK if all(one["verdict"] == "REFUSED" for one in results) else FAILED
