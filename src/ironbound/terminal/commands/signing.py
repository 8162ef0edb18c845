"""What all signed requests have in common, and `ironbound sign` and `submit`, for requests that travel in a file."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from ironbound.core.envelope import SigningKey
from ironbound.terminal import operators
from ironbound.terminal.arguments import PLACED, Command, deployment_of, option
from ironbound.terminal.voice import OK, emit, note, say, usage
from ironbound.wire.deployment import Deployment

SIGNED: Final = (
    *PLACED,
    option(
        "--sign",
        action="append",
        default=[],
        metavar="NAME[=FILE]",
        help="operator, with their SSH private key if that is enrolled; the first asks, the others approve",
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
    option("--ticket", default="", metavar="TEXT", help="your reference, signed with it"),
    option("--out", type=Path, metavar="FILE", help="write the signed request, don't send it"),
)
"""The options of every command that makes a signed request."""


def _keys(arguments: argparse.Namespace, deployment: Deployment) -> list[SigningKey]:
    folder = arguments.keys or deployment.root / "operators"
    return operators.load_keys(deployment, folder, arguments.sign, arguments.passphrase_fd, arguments.login)


def settle(
    arguments: argparse.Namespace, deployment: Deployment, payloads: Sequence[tuple[bytes, Sequence[bytes]]]
) -> list[dict[str, Any]]:
    """Sign each payload as the options say, and send it or write it to a file."""
    if not arguments.sign:
        usage("nobody signs", "name the operators with --sign NAME; the first asks, the others approve")
    keys = _keys(arguments, deployment)
    results = []
    for payload, artifacts in payloads:
        submission = operators.sign(payload, deployment.trust.deployment, keys, artifacts)
        if not arguments.json:
            for line in operators.shown(submission.request).splitlines():
                note(line)
        if arguments.out is not None:
            arguments.out.write_bytes(submission.encode() + b"\n")
            results.append({"file": str(arguments.out), "request_sha256": submission.request.digest})
        else:
            results.append(operators.submit(deployment, submission))
    return results


def tell(arguments: argparse.Namespace, results: Sequence[dict[str, Any]], what: str) -> int:
    """Say what became of the requests."""
    if arguments.json:
        emit(results[0] if len(results) == 1 else list(results))
    else:
        for result in results:
            where = result.get("file") or f"entry {result['index']} ({', '.join(result['humans'])})"
            say(f"{what}: {where}")
    return OK


def _sign(arguments: argparse.Namespace) -> int:
    deployment = deployment_of(arguments)
    submission = operators.read_submission(arguments.file)
    if not arguments.sign:
        usage("nobody signs", "name the operator with --sign NAME")
    for line in operators.shown(submission.request).splitlines():
        note(line)
    keys = _keys(arguments, deployment)
    approvals = tuple(operators.approve(submission.request, deployment.trust.deployment, key) for key in keys)
    signed = operators.Submission(submission.request, submission.approvals + approvals, submission.artifacts)
    target = arguments.out or arguments.file
    target.write_bytes(signed.encode() + b"\n")
    return tell(arguments, [{"file": str(target), "approvals": len(signed.approvals)}], "approved")


def _submit(arguments: argparse.Namespace) -> int:
    if (arguments.to is None) != (arguments.certificate is None):
        usage("--to and --certificate go together", "the certificate is the deployment's operator-channel.crt")
    submission = operators.read_submission(arguments.file)
    if arguments.to is None:
        channel = operators.local_channel(deployment_of(arguments))
    else:
        channel = operators.pinned_channel(arguments.to, arguments.certificate)
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
            option("--to", metavar="ADDRESS", help="the operator channel there, with TLS (default: DIR's Unix socket)"),
            option("--certificate", type=Path, metavar="FILE", help="the certificate that it must show"),
            option("file", type=Path, metavar="FILE"),
        ),
    ),
)
