"""`ironbound canary run`: asks the monitor to run every canary now, and shows the results as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ironbound.core.canonical import FormatError
from ironbound.wire.deployment import Deployment
from ironbound.wire.frames import receive_frame, send_frame

from .voice import FAILED, OK, Stop, emit, note, paint, say

_STYLES = {"REFUSED": "green", "ESCAPED": "red", "INCONCLUSIVE": "yellow"}


async def challenge_all(deployment: Deployment, report: Callable[[dict[str, Any], int], None]) -> list[dict[str, Any]]:
    """Every result, each reported with the total as it comes. Stop if the monitor breaks off."""
    try:
        reader, writer = await asyncio.open_unix_connection(deployment.socket("monitor"))
    except OSError as error:
        raise Stop(f"the monitor does not answer: {error.strerror}", f"`ironbound up -d {deployment.root}`") from error
    results: list[dict[str, Any]] = []
    try:
        await send_frame(writer, {"op": "canary-run"})
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


def _row(result: dict[str, Any]) -> dict[str, Any]:
    given = dict(result)
    return {"name": given.pop("probe"), "runtime": "wasmtime", "profile": given.pop("config"), **given}


def run_all(deployment: Deployment, as_json: bool) -> int:
    """Run them; exit 0 only if there were any and every one was REFUSED."""
    done = 0

    def report(result: dict[str, Any], total: int) -> None:
        nonlocal done
        done += 1
        if as_json:
            note(f"{done}/{total} {result['probe']}")
        else:
            word = paint(result["verdict"], _STYLES[result["verdict"]])
            say(f"{done:>3}/{total}  {word:<12}  {result['probe']:<22} {result['refusal'].splitlines()[0][:90]}")

    results = asyncio.run(challenge_all(deployment, report))
    if as_json:
        emit({"probes": [_row(one) for one in results]})
    if not results:
        raise Stop("no canary is approved", "`ironbound approve canaries` first")
    return OK if all(one["verdict"] == "REFUSED" for one in results) else FAILED
