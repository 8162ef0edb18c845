"""Asks the monitor to look at a held sandbox.

Decides that a look counts: signed by the monitor, about this very account, without a difference. The log's replay
decides the same again. Nothing is launched while the monitor is away.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from ironbound.core.authority import Refused
from ironbound.core.canonical import FormatError, Value
from ironbound.core.held import read_held, require_seen
from ironbound.core.trust import TrustRoot
from ironbound.wire.cosigner import peer_uid
from ironbound.wire.frames import Frame, receive_frame, send_frame

from .runtime import HoldFailed

#: Seconds that the monitor has to look at a held sandbox and say what it saw.
LOOK_S: Final = 10.0
#: Seconds between two tries to reach it.
RETRY_S: Final = 0.1
MAX_ANSWER: Final = 96 * 1024


async def look(path: str, uid: int, trust: TrustRoot, account: Mapping[str, Any], within_s: float = LOOK_S) -> Value:
    """The signed look of the monitor, which listens at `path` as user `uid`, as a start carries it.

    HoldFailed, with the differences, if there is none.
    """
    why = "it is away"
    try:
        async with asyncio.timeout(within_s):
            while True:
                try:
                    answer = await _ask(path, uid, {"op": "look", "said": dict(account)})
                    break
                except (OSError, FormatError) as error:
                    why = str(error)
                await asyncio.sleep(RETRY_S)
    except TimeoutError:
        raise HoldFailed("look", "not-observed", f"no look of the monitor within {within_s:.0f} s: {why}") from None
    held = answer.get("held")
    if answer.get("ok") is not True or held is None:
        text = f"the monitor: {str(answer.get('code'))[:50]}: {str(answer.get('message'))[:500]}"
        raise HoldFailed("look", "not-observed", text)
    said = {**account, "held": held, "deployment": trust.deployment}
    try:
        require_seen(said, trust.services["monitor"])
    except Refused as refusal:
        raise HoldFailed("look", "observed-differs", _differing(held) or refusal.reason) from refusal
    return held


def _differing(held: Value) -> str:
    try:
        found = read_held(held)["differences"]
    except FormatError:
        return ""
    return "; ".join(f"{one['path']}: expected {one['expected']}, got {one['got']}" for one in found)[:4000]


async def _ask(path: str, uid: int, question: Frame) -> Frame:
    reader, writer = await asyncio.open_unix_connection(path, limit=MAX_ANSWER)
    try:
        if peer_uid(writer.get_extra_info("socket")) != uid:
            raise ConnectionError("another than the monitor's user listens at its socket")
        await send_frame(writer, question)
        answer = await receive_frame(reader, limit=MAX_ANSWER)
        if answer is None:
            raise ConnectionError("it closed the connection")
        return answer
    finally:
        writer.close()
