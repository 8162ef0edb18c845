"""How the demo speaks: numbered steps with the time that they begin at, what held, and what was refused."""

from __future__ import annotations

import time

from ironbound.terminal.voice import paint, say


class StepFailed(Exception):
    """A step did not do what it had to."""


class Telling:
    """One demo's voice; its clock starts with it."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._number = 0

    @property
    def took_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._began

    def step(self, title: str) -> None:
        """The next step begins."""
        self._number += 1
        took = paint(f"{self.took_s:5.1f} s", "dim")
        say(f"\n{paint(f'{self._number:2}. {title}', 'bold')}  {took}")

    def tell(self, text: str) -> None:
        """What happens in it."""
        say(f"    {text}")

    def good(self, text: str) -> None:
        """What held."""
        say(f"    {paint('✓', 'green')} {text}")

    def refused(self, text: str) -> None:
        """What was refused, as it had to be."""
        say(f"    {paint('✗', 'yellow')} {text}")
