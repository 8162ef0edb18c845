"""One running deployment for all the system's tests that leave it as it was, and fresh ones for those that don't."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

sys.path.append(str(Path(__file__).resolve().parent))
sys.path.append(str(Path(__file__).resolve().parents[1] / "node"))

from stand import Stand, folder, running


@pytest.fixture(scope="session")
def stand(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stand]:
    """A running deployment of three operators, two of whom must agree, with an approved profile."""
    yield from running(tmp_path_factory.mktemp("system"))


@pytest.fixture
def fresh(tmp_path: Path) -> Iterator[Callable[..., Stand]]:
    """Makes deployments that nobody else uses; stops what still runs."""
    made: list[Stand] = []

    def make(**options: Any) -> Stand:
        made.append(Stand(folder(tmp_path, f"d{len(made)}"), **options))
        return made[-1]

    yield make
    for one in made:
        one.stop()
