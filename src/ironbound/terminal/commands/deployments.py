"""`ironbound init`, `up` and `credential`: a deployment from nothing, its services, and what its gateway keeps."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import re
from pathlib import Path
from typing import Final

from ironbound.core.trust import CANARY_INTERVAL_MS, PRODUCTION
from ironbound.terminal.arguments import JSON, PLACE, PLACED, Command, age_ms, deployment_of, option
from ironbound.terminal.voice import OK, emit, note, paint, passphrases, say


def _init(arguments: argparse.Namespace) -> int:
    from ironbound.terminal.init import initialise

    names = arguments.operator or [re.sub(r"[^a-z0-9._-]", "-", getpass.getuser().lower()) or "operator"]
    directory = arguments.directory.resolve()
    base = re.sub(r"[^a-z0-9-]", "-", directory.name.lower()).strip("-") or "ironbound"
    name = arguments.name or f"{base[:40]}-{os.urandom(3).hex()}"
    phrases = passphrases(arguments.passphrase_fd, names, new=True)
    deployment = initialise(
        directory,
        name,
        list(zip(names, phrases, strict=True)),
        arguments.quorum,
        arguments.keys,
        arguments.environment,
        arguments.canary_interval,
        arguments.tpm,
    )
    pin = str(deployment.trust.pin)
    if arguments.json:
        emit(
            {
                "deployment": name,
                "environment": deployment.trust.environment,
                "directory": str(directory),
                "pin": pin,
                "separation": deployment.trust.separation,
            }
        )
    else:
        say(f"deployment {name}, environment {deployment.trust.environment}, in {directory}")
        say(f"operators  {', '.join(names)}, quorum {arguments.quorum}")
        if deployment.separated:
            say("separation each service has its own user")
        else:
            say(paint("separation by process only, not by user (that takes root); the evidence says so", "yellow"))
        say(f"pin        {pin}")
        note("hand the pin to your auditor by another road; then: " + f"ironbound up -d {arguments.directory}")
    return OK


def _up(arguments: argparse.Namespace) -> int:
    from ironbound.terminal.up import up

    deployment = deployment_of(arguments)
    asyncio.run(up(deployment, lambda role, text: note(f"{role}: {text}")))
    return OK


def _credential(arguments: argparse.Namespace) -> int:
    from ironbound.terminal.credential import keep

    deployment = deployment_of(arguments)
    value = passphrases(arguments.value_fd, [f"credential {arguments.name}"])[0]
    binding = keep(deployment, arguments.name, arguments.url, arguments.header, value.decode())
    if arguments.json:
        emit(binding)
    else:
        say(f"credential {arguments.name} kept for {arguments.url}; restart the gateway to use it")
    return OK


COMMANDS: Final = (
    Command(
        "init",
        _init,
        "Make a deployment.",
        "ironbound init prod --operator ada --operator bo --quorum 2",
        (
            option("directory", type=Path, metavar="DIR"),
            option("--name", metavar="ID", help="deployment id (default: the folder's name and six random digits)"),
            option("--environment", default=PRODUCTION, metavar="NAME", help=f"what it is for (default: {PRODUCTION})"),
            option("--tpm", metavar="ADDRESS", help="the node's TPM: /dev/tpmrm0, or swtpm:PATH (default: none)"),
            option(
                "--canary-interval",
                type=age_ms,
                default=CANARY_INTERVAL_MS,
                metavar="15m",
                help="each canary bites once in each interval (default 15m)",
            ),
            option("--operator", action="append", default=[], metavar="NAME", help="a human (default: you)"),
            option("--quorum", type=int, default=1, metavar="N", help="how many humans it takes (default 1)"),
            option("--keys", type=Path, metavar="DIR", help="where the operators' keys go (default: inside)"),
            option("--passphrase-fd", type=int, metavar="N", help="passphrases, a line for each operator"),
            JSON,
        ),
    ),
    Command("up", _up, "Run the services until Ctrl-C.", "ironbound up -d prod", (PLACE,)),
    Command(
        "credential",
        _credential,
        "Keep an upstream credential at the gateway; it takes effect at its next start.",
        "ironbound credential records --url http://127.0.0.1:8801/records --value-fd 3 3<token",
        (
            *PLACED,
            option("name", metavar="NAME"),
            option("--url", required=True, metavar="URL", help="scheme, host, port and path that it is for"),
            option("--header", default="Authorization", metavar="NAME"),
            option("--value-fd", type=int, metavar="N", help="the header's value, a line (default: asked)"),
        ),
    ),
)
