"""What all signed requests have in common, and `ironbound sign` and `submit`, for requests that travel in a file."""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from ironbound.core.envelope import Envelope
from ironbound.core.oidc import IssuerKeys
from ironbound.core.reasons import REASONS
from ironbound.core.replay import Replay
from ironbound.core.shown import Row, as_text, shown_rows
from ironbound.core.statement import ACTS, parse_statement
from ironbound.core.trust import TrustRoot
from ironbound.terminal import operators
from ironbound.terminal.arguments import PLACED, Command, age_ms, deployment_of, option
from ironbound.terminal.consent import Screen
from ironbound.terminal.voice import OK, Stop, emit, note, say, usage
from ironbound.wire.deployment import Deployment

KEYED: Final = (
    option(
        "--sign",
        action="append",
        default=[],
        metavar="NAME[=KEY]",
        help="operator, with `passkey` or their SSH private key's file if that is enrolled; the first asks",
    ),
    option(
        "--login",
        action="append",
        default=[],
        metavar="NAME[=PORT]",
        help="who logs in at their identity provider as well, in a browser that comes back to this machine (at PORT)",
    ),
    option("--keys", type=Path, metavar="DIR", help="folder of the operators' keys"),
    option("--passphrase-fd", type=int, metavar="N", help="passphrases, a line for each operator"),
)
"""The options that say who signs, with what."""
SIGNED: Final = (
    *PLACED,
    *KEYED,
    option("--ticket", default="", metavar="TEXT", help="your reference, signed with it"),
    option("--out", type=Path, metavar="FILE", help="write the signed request, don't send it"),
    option("--propose", action="store_true", help="let it wait for others' approvals (`ironbound requests`)"),
    option("--valid", type=age_ms, metavar="8h", help="how long it can be approved (15m, proposed 8h; most 1d)"),
)
"""The options of every command that makes a signed request."""
REACHED: Final = (
    option("--to", metavar="ADDRESS", help="the operator channel there, with TLS (default: DIR's Unix socket)"),
    option("--certificate", type=Path, metavar="FILE", help="the certificate that it must show"),
)
"""The options of every command that asks the operator channel, perhaps from another machine."""
PROPOSED_LIFE_MS: Final = 8 * 3_600_000


def reached(arguments: argparse.Namespace) -> operators.Channel:
    """The operator channel that the options name."""
    if (arguments.to is None) != (arguments.certificate is None):
        usage("--to and --certificate go together", "the certificate is the deployment's operator-channel.crt")
    if arguments.to is None:
        return operators.local_channel(deployment_of(arguments))
    return operators.pinned_channel(arguments.to, arguments.certificate)


def show_request(request: Envelope) -> None:
    """What its signers see, on stderr."""
    statement = parse_statement(request.payload)
    if statement.kind not in ACTS:
        raise Stop(f"not-a-request: {REASONS['not-a-request']}", f"its kind is {statement.kind}")
    show_rows(shown_rows(statement.kind, statement.predicate))


def signing_keys(arguments: argparse.Namespace, deployment: Deployment) -> list[operators.Signer]:
    """Who signs, with what, as the options say."""
    folder = arguments.keys or deployment.root / "operators"
    return operators.load_keys(deployment, folder, arguments.sign, arguments.passphrase_fd, arguments.login)


def show_rows(rows: tuple[Row, ...]) -> None:
    """Rows as progress, on stderr."""
    for line in as_text(rows).splitlines():
        note(line)


def settle(
    arguments: argparse.Namespace,
    deployment: Deployment,
    replay: Replay,
    payloads: Sequence[tuple[bytes, Sequence[bytes]]],
    trust: TrustRoot | None = None,
) -> list[dict[str, Any]]:
    """Show each payload, have it signed as the options say, and send it or write it to a file.

    `trust`: whose people may sign (default: the trust root in force).
    """
    deployment = operators.current(deployment, replay) if trust is None else replace(deployment, trust=trust)
    if not arguments.sign:
        usage("nobody signs", "name the operators with --sign NAME; the first asks, the others approve")
    if arguments.propose and (len(arguments.sign) > 1 or arguments.out is not None):
        usage("one operator proposes", "the others approve it: `ironbound requests approve ID --sign NAME`")
    life = arguments.valid or (PROPOSED_LIFE_MS if arguments.propose else None)
    if life is not None:
        payloads = [(operators.lasting(payload, life), artifacts) for payload, artifacts in payloads]

    def around(screen: Screen) -> None:
        if not arguments.json:
            show_rows(screen.around)

    if not arguments.json:
        for payload, _ in payloads:
            statement = parse_statement(payload)
            show_rows(shown_rows(statement.kind, statement.predicate))
    results = []
    signers = signing_keys(arguments, deployment)
    for submission in operators.collect(deployment, payloads, signers, around, replay.books.issuers):
        if arguments.out is not None:
            arguments.out.write_bytes(submission.encode() + b"\n")
            results.append({"file": str(arguments.out), "request_sha256": submission.request.digest})
        elif arguments.propose:
            channel = operators.local_channel(deployment)
            results.append(operators.ask(channel, "POST", "/proposals", submission.encode()))
        else:
            results.append(operators.submit(deployment, submission))
    return results


def tell(arguments: argparse.Namespace, results: Sequence[dict[str, Any]], what: str) -> int:
    """Say what became of the requests."""
    if arguments.json:
        emit(results[0] if len(results) == 1 else list(results))
    else:
        for result in results:
            if "state" in result:
                waits = f"{result['state']}, 1 of {result['needed']} humans"
                say(f"request {result['id']} proposed: entry {result['index']}, {waits}")
                continue
            where = result.get("file") or f"entry {result['index']} ({', '.join(result['humans'])})"
            say(f"{what}: {where}")
    return OK


def _sign(arguments: argparse.Namespace) -> int:
    deployment = deployment_of(arguments)
    submission = operators.read_submission(arguments.file)
    if not arguments.sign:
        usage("nobody signs", "name the operator with --sign NAME")
    issuers: Mapping[str, IssuerKeys] | None = None
    try:
        replay = operators.replayed(deployment)
        deployment, issuers = operators.current(deployment, replay), replay.books.issuers
    except Stop:
        note("the log does not answer here: people and keys are those of the first trust root")
    show_request(submission.request)
    (approvals,) = operators.collect_approvals(
        deployment,
        [(submission.request, submission.approvals)],
        signing_keys(arguments, deployment),
        lambda screen: show_rows(screen.around),
        issuers,
    )
    signed = operators.Submission(submission.request, tuple(approvals), submission.artifacts)
    target = arguments.out or arguments.file
    target.write_bytes(signed.encode() + b"\n")
    return tell(arguments, [{"file": str(target), "approvals": len(signed.approvals)}], "approved")


def _submit(arguments: argparse.Namespace) -> int:
    channel, submission = reached(arguments), operators.read_submission(arguments.file)
    return tell(arguments, [operators.send(channel, submission.encode())], "admitted")


COMMANDS: Final = (
    Command(
        "sign",
        _sign,
        "Approve a request in a file.",
        "ironbound sign request.json --sign bo",
        (*SIGNED, option("file", type=Path, metavar="FILE")),
    ),
    Command(
        "submit",
        _submit,
        "Send a request in a file.",
        "ironbound submit request.json --to 127.0.0.1:8443 --certificate operator-channel.crt",
        (
            *PLACED,
            *REACHED,
            option("file", type=Path, metavar="FILE"),
        ),
    ),
)
