"""`ironbound trace`: every link from the release to an agent's end, from the log that runs or from evidence."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ironbound.core.replay import Entry, Replay
from ironbound.core.trust import parse_pin
from ironbound.terminal import operators
from ironbound.terminal.arguments import PLACED, Command, deployment_of, option
from ironbound.terminal.voice import BROKEN, FAILED, OK, Stop, emit, note, paint, say, usage
from ironbound.wire.deployment import Deployment, DeploymentError

if TYPE_CHECKING:
    from ironbound.verifier.deployed import Releases
    from ironbound.verifier.history import History


def _trace(arguments: argparse.Namespace) -> int:
    from ironbound.verifier.trace import ladder_lines, ladder_value, ladders

    if arguments.pin is not None and arguments.bundle is None:
        usage("--pin goes with --bundle")
    if arguments.bundle is None:
        history, releases = _live(deployment_of(arguments))
    else:
        history, releases = _kept(arguments.bundle, arguments.pin)
    found = list(ladders(history, releases, arguments.agent))
    if not found:
        raise Stop(f"no launch of {arguments.agent} in this log", "`ironbound agents` lists every launch", FAILED)
    if arguments.json:
        emit([ladder_value(one) for one in found])
    else:
        for place, one in enumerate(found):
            if place:
                say()
            for line in ladder_lines(one, paint):
                say(line)
    return OK if all(one.whole for one in found) else FAILED


def _kept(bundle: Path, pin: str | None) -> tuple[History, Releases]:
    """From evidence, once its integrity was checked."""
    from ironbound.verifier.bundle import BundleBroken
    from ironbound.verifier.output import tenths
    from ironbound.verifier.verify import read_bundle

    try:
        with open(bundle, "rb") as file:
            sound = read_bundle(file, None if pin is None else parse_pin(pin), tenths(note))
            for given in (one for gifts in sound.history.given.values() for one in gifts):
                if given.kind == "release-approval":
                    sound.releases.read(given)  # while the file is open
            return sound.history, sound.releases
    except BundleBroken as broken:
        raise Stop(f"the bundle's integrity is broken: {broken}", "nothing in it counts", BROKEN) from broken


def _live(deployment: Deployment) -> tuple[History, Releases]:
    """From the log as it is now, folded anew."""
    from ironbound.verifier.deployed import Releases
    from ironbound.verifier.history import History

    replay = Replay()
    history = History(replay)

    def take(entry: Entry) -> None:
        history.add(replay.apply(entry.data))

    def artifact(digest: str) -> bytes | None:
        try:
            return deployment.artifact(digest)
        except DeploymentError:
            return None

    operators.replayed(deployment, take)
    return history, Releases(history, artifact)


COMMANDS: Final = (
    Command(
        "trace",
        _trace,
        "Each launch of an agent, link by link, from the signed release to its end. Exit code 1: a link is broken.",
        'ironbound trace clerk --bundle evidence.ironbound --pin "$(cat pin.txt)"',
        (
            option("agent", metavar="AGENT", help="whose launches"),
            *PLACED,
            option("--bundle", type=Path, metavar="FILE", help="from evidence instead of the log that runs"),
            option("--pin", metavar="PIN", help="with --bundle: the deployment that it has to be"),
        ),
    ),
)
