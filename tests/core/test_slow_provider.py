"""An identity provider that does not answer keeps nobody waiting but whoever needs its keys."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from typing import Any, cast

import httpx
from test_oidc import Deployment

from identities import ProviderKey
from ironbound.controller.operator import Operators
from ironbound.core.canonical import canonical
from ironbound.core.envelope import Envelope, SigningKey, sign_envelope
from ironbound.core.replay import Entry, Replay
from ironbound.core.request import encode_approval, encode_decline

LIMIT_S = 30.0


class InMemory:
    """The lab's log, as the controller speaks to its own."""

    def __init__(self, lab: Deployment) -> None:
        self._lab = lab

    @property
    def replay(self) -> Replay:
        return self._lab.replay

    async def append(self, kind: str, subjects: object, fields: dict[str, Any]) -> Entry:
        return self._lab.say("controller", kind, **fields)


class Waiting:
    """An archive whose provider answers when it is let."""

    def __init__(self, lab: Deployment, *keys: ProviderKey) -> None:
        self.asked, self.answers, self._lab, self._keys = asyncio.Event(), asyncio.Event(), lab, keys

    async def catch_up(self) -> None:
        self.asked.set()
        await self.answers.wait()
        self._lab.both_say(*self._keys)


def test_one_approval_that_waits_for_a_provider_holds_up_no_other_answer() -> None:
    asyncio.run(asyncio.wait_for(_play(), LIMIT_S))


async def _play() -> None:
    lab, new = Deployment(now=time.time_ns() // 1_000_000 - 60_000), ProviderKey("new", "ES256")
    lab.both_say(lab.provider)
    archive = Waiting(lab, new)
    operators = Operators(cast(Any, None), cast(Any, InMemory(lab)), cast(Any, archive))
    requests = []
    for agent in ("one", "two", "three"):
        body = {"before": None, "after": {"calls": 1, "window_ms": 1000}}
        plain = lab.request("quota", agent=agent, body=body)
        requests.append(sign_envelope(plain.payload, [lab.devices["ada"]]))
        lab.expect(lab.say("controller", "proposed", request=requests[-1].as_value()))
    app = operators.app()
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://controller") as client:

        async def answer(request: Envelope, field: str, keys: Sequence[SigningKey]) -> httpx.Response:
            until = lab.now + 600_000
            payload = (
                encode_approval(request, deployment="lab", approval_id=lab.fresh(), expires_ms=until)
                if field == "approval"
                else encode_decline(request, deployment="lab", decline_id=lab.fresh(), expires_ms=until)
            )
            content = canonical({field: sign_envelope(payload, keys).as_value()})
            return await client.post(f"/proposals/{request.digest}/{field}s", content=content, timeout=None)

        slow = asyncio.create_task(answer(requests[0], "approval", lab.with_both("bob", key=new)))
        await archive.asked.wait()
        done = await answer(requests[1], "approval", [lab.devices["bob"]])
        assert (done.status_code, done.json().get("state")) == (200, "applied"), done.text
        done = await answer(requests[2], "decline", [lab.devices["bob"]])
        assert (done.status_code, done.json().get("state")) == (200, "declined"), done.text
        assert not slow.done()
        archive.answers.set()
        done = await slow
        assert (done.status_code, done.json().get("state")) == (200, "applied"), done.text
    await app.close()
