"""`ironbound canary run`: asks the monitor to run the canaries now, and shows the results as they come."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from ironbound.core.canonical import FormatError
from ironbound.wire.deployment import Deployment
from ironbound.wire.frames import receive_frame, send_frame

from .voice import FAILED, OK, Stop, emit, note, paint, say

_STYLES = {"REFUSED": "green", "ESCAPED": "red", "INCONCLUSIVE": "yellow"}


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
    if not results:
        text = "no approved profile has a canary" if profile is None else f"no approved profile {profile} has a canary"
        raise Stop(text, "`ironbound approve canaries` first")
    return OK if all(one["verdict"] == "REFUSED" for one in results) else FAILED
