"""Entitled voices that say nonsense, well signed: whatever it is, the verifier reaches a verdict and prints it."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from typing import Any

import pytest

from ironbound.core.canonical import FormatError, canonical
from ironbound.core.envelope import parse_envelope, sign_envelope
from ironbound.verifier.output import report_lines, report_value

from .lab import Honest, Lab, honest

NONSENSE: tuple[Any, ...] = (
    None,
    True,
    0,
    1,
    -1,
    1 << 40,
    "",
    "x" * 70,
    "0" * 64,
    "0" * 32,
    [],
    {},
    [{}],
    [[]],
    {"a": 1},
)
Path = tuple[str | int, ...]


def places(value: Any, path: Path = ()) -> Iterator[Path]:
    """Every place in a document."""
    if path:
        yield path
    if isinstance(value, dict):
        for name in value:
            yield from places(value[name], (*path, name))
    elif isinstance(value, list):
        for at, item in enumerate(value):
            yield from places(item, (*path, at))


def spoiled(entry: bytes, scene: Honest, chance: random.Random) -> bytes:
    """The entry with nonsense in one place of its predicate, signed by the same voice."""
    envelope = parse_envelope(entry)
    statement = json.loads(envelope.payload)
    place = chance.choice(list(places(statement["predicate"])))
    inside = statement["predicate"]
    for step in place[:-1]:
        inside = inside[step]
    if chance.random() < 0.2:
        del inside[place[-1]]
    else:
        inside[place[-1]] = chance.choice(NONSENSE)
    signers = [one for one in scene.lab.services.values() if one.public.keyid == envelope.signatures[0].keyid]
    try:
        return sign_envelope(canonical(statement), signers).encode()
    except FormatError:
        return entry


@pytest.mark.parametrize("seed", range(8))
def test_whatever_an_entitled_voice_says_the_verifier_reaches_a_verdict(seed: int) -> None:
    scene, chance = honest(), random.Random(seed)
    drift = scene.lab.expect(scene.lab.drift(scene.started))
    scene.lab.expect(scene.lab.stop_order(drift, scene.launch))
    scene.lab.expect(scene.lab.exit(scene.started, "stopped"))
    said = [at for at, entry in enumerate(scene.lab.entries) if at > 8 or (at and b"service-started" in entry)]
    for _ in range(25):
        entries = list(scene.lab.entries)
        for at in chance.sample(said, chance.choice([1, 1, 2])):
            entries[at] = spoiled(entries[at], scene, chance)
        lab = Lab(now=scene.lab.now)
        lab.artifacts, lab.entries[:] = scene.lab.artifacts, []
        lab.replay = type(lab.replay)()
        for entry in entries:
            lab.append(entry)
        report = lab.verify()
        assert report.exit_code in (1, 4)
        assert len(list(report_lines(report, colour=True))) > 20
        assert json.dumps(report_value(report))
