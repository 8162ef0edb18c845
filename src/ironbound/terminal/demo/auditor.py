"""The demo's last steps: the auditor checks the evidence, as it is, damaged, and rewritten with every key of the host.

Decides nothing: the verifier does, from the file and the pin.
"""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Final

from ironbound.canary.probes import controlled
from ironbound.core.trust import parse_pin
from ironbound.evidence.report.build import report_html
from ironbound.terminal.voice import OK, UNPROVEN, paint
from ironbound.verifier.bundle import BundleBroken
from ironbound.verifier.verify import Report, verify_bundle
from ironbound.wire.deployment import ROLES, Deployment

from . import forgery
from .telling import StepFailed, Telling

#: The claims that speak of a signed release: unproven where the demo runs without one.
OF_A_RELEASE: Final = frozenset({"E1", "E2", "E3"})


class Auditor:
    """Who has the folder `target`, with the evidence and the pin in it. `released`: a signed release is what ran."""

    def __init__(self, telling: Telling, target: Path, released: bool) -> None:
        self._telling = telling
        self._target = target
        self._released = released

    async def _check(self, path: Path) -> Report:
        pin = parse_pin((self._target / "pin.txt").read_text(encoding="ascii"))
        with open(path, "rb") as file:
            return await asyncio.to_thread(verify_bundle, file, pin)

    def _page(self) -> bytes:
        pin = parse_pin((self._target / "pin.txt").read_text(encoding="ascii"))
        with open(self._target / "evidence.ironbound", "rb") as file:
            return report_html(file, pin, controlled=controlled())[0]

    async def verify(self) -> None:
        """Every claim of the evidence, with the verifier that any auditor runs; then the report."""
        self._telling.step("The auditor verifies it offline, from the pin and the file alone")
        report = await self._check(self._target / "evidence.ironbound")
        styles = {"holds": "green", "refuted": "red", "unproven": "yellow"}
        for claim in report.claims:
            word = paint(f"{claim.status:<9}", styles[claim.status])
            self._telling.tell(f"{claim.id}  {word} {claim.says}")
        unproven = {claim.id for claim in report.claims if claim.status == "unproven"}
        expected = OF_A_RELEASE if not self._released else frozenset()
        code = UNPROVEN if expected else OK
        if report.exit_code != code or unproven != expected:
            why = (
                f"{claim.id} {claim.status}: {one.code}, {one.text}"
                for claim in report.claims
                for one in claim.reasons
                if claim.id not in expected
            )
            raise StepFailed(f"exit code {report.exit_code}; {'; '.join(why) or 'a claim holds that can not'}")
        counts = next(claim.counts for claim in report.claims if claim.id == "C1")
        strengths = ", ".join(
            f"{counts[name]} {name}" for name in counts if name.startswith("signatures ") and counts[name]
        )
        self._telling.good(f"C1 counts {strengths}")
        words = "nothing refuted; what is unproven takes a signed release" if expected else "every claim holds"
        self._telling.good(f"exit code {code}: {words}")
        page = self._target / "report.html"
        page.write_bytes(await asyncio.to_thread(self._page))
        self._telling.good(
            f"{page.name}: the same for people, {page.stat().st_size:,} bytes that check themselves in a browser"
        )

    async def flip(self) -> None:
        """One byte in each kind of member, behind checksums made right again: each is seen."""
        self._telling.step("One byte of it is flipped, and every checksum made right again")
        whole, flipped = self._target / "evidence.ironbound", self._target / "flipped.ironbound"
        members = (("checkpoint", "the checkpoint"), ("tile/entries", "an entry"), ("artifacts", "an artifact"))
        for member, says in members:
            forgery.flip(whole, flipped, member)
            try:
                report = await self._check(flipped)
            except BundleBroken as broken:
                self._telling.refused(f"in {says}: exit code 3, D1 falls and nothing else is claimed: {broken.code}")
                continue
            finally:
                flipped.unlink()
            raise StepFailed(f"a flipped byte in {member} was not seen: exit code {report.exit_code}")

    async def rewrite(self, deployment: Deployment, granted: int) -> None:
        """The grant at entry `granted` as one human's, by somebody who has every key of the host: refuted."""
        self._telling.step(
            "Somebody with every key of the host rewrites history, and signs it all anew: ada granted it alone"
        )
        whole, forged = self._target / "evidence.ironbound", self._target / "forged.ironbound"
        keys = {role: deployment.key(role) for role in (*ROLES, "witness")}
        forgery.rewrite(whole, forged, deployment.trust, keys, granted, lambda said: said | {"approvals": []})
        try:
            report = await self._check(forged)
        finally:
            forged.unlink()
        fallen = [claim for claim in report.claims if claim.status == "refuted"]
        for claim in fallen:
            for reason in claim.reasons:
                places = ", ".join(str(index) for index in reason.indexes[:4])
                self._telling.refused(f"{claim.id} refuted: {reason.code} (entry {places})")
        if report.exit_code != 1 or "C1" not in {claim.id for claim in fallen}:
            raise StepFailed(f"the forged history was not refuted: exit code {report.exit_code}")
        self._telling.good("the log, the witness and the pin agree with the forger; the humans' signatures don't")
