"""Headless browsers for tests, and the terminal's half of an approval: a call in a thread, with what it told."""

from __future__ import annotations

import re
import signal
import threading
import time
from collections.abc import Callable
from typing import Any

from ironbound.terminal.demo.browser import Browser

_URL = re.compile(r"open (http://localhost:[0-9]+/\S+)")
WAIT_S = 60.0


def hear_ctrl_c() -> None:
    """For a child before it starts: a shell lets what runs in its background ignore Ctrl-C, and children inherit it."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Waiting:
    """A call that waits for a human, in a thread; `url` is the page that it told of."""

    def __init__(self, call: Callable[[Callable[[str], None]], Any]) -> None:
        self.told: list[str] = []
        self._value: Any = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), daemon=True)
        self._thread.start()

    def _run(self, call: Callable[[Callable[[str], None]], Any]) -> None:
        try:
            self._value = call(self.told.append)
        except BaseException as error:  # noqa: BLE001 - it is raised where the result is asked for
            self._error = error

    @property
    def url(self) -> str:
        end = time.monotonic() + WAIT_S
        while time.monotonic() < end:
            for line in self.told:
                if found := _URL.search(line):
                    return found[1]
            if not self._thread.is_alive():
                raise AssertionError(f"it ended without a page: {self._error or self._value!r}")
            time.sleep(0.005)
        raise AssertionError("no page was told of")

    def result(self) -> Any:
        self._thread.join(WAIT_S)
        assert not self._thread.is_alive(), f"it still waits; it told {self.told}"
        if self._error is not None:
            raise self._error
        return self._value

    @property
    def waits(self) -> bool:
        return self._thread.is_alive()


def post(browser: Browser, answer: Any) -> tuple[int, dict[str, Any]]:
    """The answer, sent by the page where the browser is, as its own script would."""
    body = """
    return fetch(location.pathname, {method: "POST", body: JSON.stringify(arguments[0]), headers: {
      "content-type": "application/json", "ironbound-page": document.querySelector("main").dataset.secret}})
      .then(async (got) => [got.status, await got.json()]);
    """
    status, value = browser.script(body, answer)
    return status, value
