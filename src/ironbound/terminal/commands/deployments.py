"""`ironbound init`, `up` and `credential`: a deployment from nothing, its services, and what its gateway keeps."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from ironbound.core.canonical import canonical
from ironbound.core.oidc import Identity
from ironbound.core.scheme import key_entry
from ironbound.core.sshsig import SshKey
from ironbound.core.trust import CANARY_INTERVAL_MS, PRODUCTION
from ironbound.core.webauthn import Passkey
from ironbound.terminal.approval.signer import PORT, PageSigner, enrol, page_signer
from ironbound.terminal.arguments import JSON, PLACE, PLACED, Command, age_ms, deployment_of, option
from ironbound.terminal.certificate import fingerprint_of
from ironbound.terminal.consent import Screen
from ironbound.terminal.enrol import PASSKEY, TOUCH, enrolled, identity, is_passkey
from ironbound.terminal.ssh import SshSigner
from ironbound.terminal.voice import OK, Stop, emit, note, paint, passphrases, say
from ironbound.wire.deployment import CHANNEL_CERTIFICATE, read_file
from ironbound.wire.issuer import IssuerUnavailable, published_keys


def _init(arguments: argparse.Namespace) -> int:
    from ironbound.terminal.init import initialise, require_new

    words = arguments.operator or [re.sub(r"[^a-z0-9._-]", "-", getpass.getuser().lower()) or "operator"]
    directory = arguments.directory.resolve()

    def show(screen: Screen) -> None:
        if not arguments.json:
            for line in screen.text.splitlines():
                note(line)

    base = re.sub(r"[^a-z0-9-]", "-", directory.name.lower()).strip("-") or "ironbound"
    name = arguments.name or f"{base[:40]}-{os.urandom(3).hex()}"
    require_new(directory)
    people = _people(words, name, arguments.passphrase_fd)
    names = [one for one, _ in people]
    deployment = initialise(
        directory,
        name,
        people,
        arguments.quorum,
        arguments.keys,
        arguments.environment,
        arguments.canary_interval,
        arguments.tpm,
        arguments.listen,
        _identities(arguments.identity, name),
        arguments.release,
        show,
    )
    fingerprint = fingerprint_of(read_file(directory / CHANNEL_CERTIFICATE))
    pin = str(deployment.trust.pin)
    if arguments.json:
        emit(
            {
                "deployment": name,
                "environment": deployment.trust.environment,
                "directory": str(directory),
                "pin": pin,
                "separation": deployment.trust.separation,
                "operator_channel_sha256": fingerprint,
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
        say(f"channel    {arguments.listen or 'a Unix socket'}; certificate SHA-256 {fingerprint}")
        note("hand the pin to your auditor by another road; then: " + f"ironbound up -d {arguments.directory}")
    return OK


def _people(
    words: Sequence[str], deployment: str, descriptor: int | None
) -> list[tuple[str, bytes | SshSigner | PageSigner | Passkey]]:
    """The operators with their own keys (NAME=FILE, NAME=passkey), or with the passphrases of those to be made."""
    named = {word.partition("=")[0]: word.partition("=")[2] for word in words}
    if len(named) != len(words):
        raise Stop("an operator is named twice")
    own = {name: enrolled(file, deployment) for name, file in named.items() if file and not is_passkey(file)}
    for name, mine in own.items():
        if isinstance(mine, Identity):
            raise Stop(f"operator {name} has an identity, and no key beside it", f"--operator {name}=FILE --identity …")
    paged = {name for name, file in named.items() if is_passkey(file)}
    asked = [
        name
        for name in named
        if name not in paged and (name not in own or (descriptor is not None and isinstance(own[name], SshKey)))
    ]
    phrases = dict(zip(asked, passphrases(descriptor, asked, new=True), strict=True)) if asked else {}
    people: list[tuple[str, bytes | SshSigner | PageSigner | Passkey]] = []
    for name, file in named.items():
        key = own.get(name)
        if name in paged:
            people.append((name, page_signer(name, enrol(name, deployment, _port(file), note)[0], note)))
        elif isinstance(key, SshKey):
            private = Path(file.removeprefix(TOUCH).removesuffix(".pub"))
            people.append((name, SshSigner(private, key, phrases.get(name))))
        else:
            people.append((name, key if isinstance(key, Passkey) else phrases[name]))
    return people


def _identities(words: Sequence[str], deployment: str) -> dict[str, Identity]:
    """The operators' identities, in NAME=ISSUER,CLIENT,SUBJECT,ACR."""
    found = {}
    for word in words:
        name, _, rest = word.partition("=")
        if name in found:
            raise Stop(f"operator {name} has two identities", "one for each, or change the roster later")
        found[name] = identity(rest, deployment)
    for issuer in sorted({one.issuer for one in found.values()}):
        try:
            published_keys(issuer)
        except IssuerUnavailable as error:
            note(f"identity provider: {error}; controller and monitor will try again")
    return found


def _port(word: str) -> int:
    """The port in `passkey:PORT`."""
    _, found, text = word.partition(":")
    if not found:
        return PORT
    port = int(text) if re.fullmatch(r"[1-9][0-9]{0,4}", text) else 0
    if not 1024 <= port < 65536:
        raise Stop(f"{word}: {text!r} is no port from 1024 to 65535", "write NAME=passkey, or NAME=passkey:8791")
    return port


def _operator_passkey(arguments: argparse.Namespace) -> int:
    if arguments.out.exists():
        raise Stop(f"{arguments.out} exists", "give --out a file that doesn't exist yet")
    key, registration = enrol(arguments.name, arguments.deployment_id, _port(arguments.key), note)
    arguments.out.write_bytes(canonical(registration) + b"\n")
    if arguments.json:
        emit({"file": str(arguments.out), "keyid": key.keyid, "origin": key.origin, "synced": key.synced})
    else:
        say(f"passkey {key.keyid[:12]} of {arguments.name}, made at {key.origin}: {arguments.out}")
        note(f"whoever makes the deployment enrols it: ironbound init DIR --operator {arguments.name}={arguments.out}")
    return OK


def _operator_key(arguments: argparse.Namespace) -> int:
    key = enrolled(arguments.file, arguments.deployment_id)
    emit({"entry": key_entry(key), "keyid": key.keyid})
    return OK


def _up(arguments: argparse.Namespace) -> int:
    from ironbound.terminal.up import up

    deployment = deployment_of(arguments)
    asyncio.run(up(deployment, lambda role, text: note(f"{role}: {text}")))
    return OK


def _credential(arguments: argparse.Namespace) -> int:
    from ironbound.terminal.credential import bound, keep

    deployment = deployment_of(arguments)
    binding = bound(arguments.url, arguments.header)
    value = passphrases(arguments.value_fd, [f"credential {arguments.name}"], what="value")[0]
    keep(deployment, arguments.name, binding, value.decode("utf-8", "replace"))
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
            option(
                "--release",
                type=Path,
                metavar="DIR",
                help="a release that `./dev release` made: only those of its key will run here (default: any)",
            ),
            option("--tpm", metavar="ADDRESS", help="the node's TPM: /dev/tpmrm0, or swtpm:PATH (default: none)"),
            option(
                "--canary-interval",
                type=age_ms,
                default=CANARY_INTERVAL_MS,
                metavar="15m",
                help="each canary bites once in each interval (default 15m)",
            ),
            option("--listen", metavar="ADDRESS", help="the operator channel there too, with TLS (127.0.0.1:8443)"),
            option(
                "--operator",
                action="append",
                default=[],
                metavar="NAME[=KEY]",
                help="a human (default: you), with their own key: `passkey` (made on a page that this opens here;"
                " passkey:PORT for another port), or the file of an SSH public key or a passkey's registration",
            ),
            option(
                "--identity",
                action="append",
                default=[],
                metavar="NAME=ISSUER,CLIENT,SUBJECT,ACR",
                help="an operator's identity at an OpenID provider; it counts beside their passkey or security key",
            ),
            option("--quorum", type=int, default=1, metavar="N", help="how many humans it takes (default 1)"),
            option("--keys", type=Path, metavar="DIR", help="where the operators' keys go (default: inside)"),
            option("--passphrase-fd", type=int, metavar="N", help="passphrases, a line for each operator"),
            JSON,
        ),
    ),
    Command(
        "operator key",
        _operator_key,
        "What a trust root would hold of an operator's own key.",
        "ironbound operator key ~/.ssh/id_ed25519_sk.pub --deployment-id prod-1f2e3d",
        (
            option(
                "file",
                metavar="FILE",
                help="an SSH public key or a passkey's registration; touch:FILE without PIN; ISSUER,CLIENT,SUBJECT,ACR",
            ),
            option("--deployment-id", required=True, metavar="ID", help="the deployment that it will sign for"),
        ),
    ),
    Command(
        "operator passkey",
        _operator_passkey,
        "Make a passkey on a page in this machine's browser, and write its registration to a file.",
        "ironbound operator passkey ada --deployment-id prod-1f2e3d --out ada.json",
        (
            option("name", metavar="NAME"),
            option("--deployment-id", required=True, metavar="ID", help="the deployment that it will sign for"),
            option("--key", default=PASSKEY, metavar="passkey:PORT", help=f"where it will sign (default port {PORT})"),
            option("--out", type=Path, required=True, metavar="FILE", help="what `init --operator NAME=FILE` takes"),
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
