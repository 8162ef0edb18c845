"""`ironbound approve`: a profile, a module, the canaries or one call, as operators sign them."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Final

from ironbound.core.canonical import sha256_hex
from ironbound.core.profile import Layer, merge
from ironbound.core.replay import Entry
from ironbound.core.surface import approval_body
from ironbound.terminal import operators
from ironbound.terminal.arguments import Command, count, deployment_of, option
from ironbound.terminal.releases import approval_of, keep_release, read_release_folder
from ironbound.terminal.voice import OK, Stop, note
from ironbound.wire.deployment import MAX_ARTIFACT, read_file

from .signing import SIGNED, settle, tell


def _profile(arguments: argparse.Namespace) -> int:
    deployment = deployment_of(arguments)
    layers = [Layer(path.name, read_file(path)) for path in arguments.files]
    effective = merge(layers)
    replay = operators.replayed(deployment)
    payload = operators.build(
        replay,
        "profile-approval",
        config=effective.digest,
        body=effective.approval_body(),
        ticket=arguments.ticket,
    )
    results = settle(arguments, deployment, replay, [(payload, [effective.encoded])])
    return tell(arguments, results, f"profile {effective.config['profile']} ({effective.digest[:12]}) approved")


def _module(arguments: argparse.Namespace) -> int:
    deployment = deployment_of(arguments)
    data = read_file(arguments.file, MAX_ARTIFACT)
    digest = sha256_hex(data)
    replay = operators.replayed(deployment)
    payload = operators.build(
        replay,
        "module-approval",
        module=digest,
        body=approval_body(data),
        ticket=arguments.ticket,
    )
    return tell(arguments, settle(arguments, deployment, replay, [(payload, [data])]), f"module {digest[:12]} approved")


def _release(arguments: argparse.Namespace) -> int:
    deployment = deployment_of(arguments)
    key = deployment.trust.release
    if key is None:
        raise Stop("the trust root names no release key", "`ironbound init --release DIR` makes one that does")
    statements = read_release_folder(arguments.folder, key)
    replay = operators.replayed(deployment)
    body = approval_of(deployment, statements, key)
    payload = operators.build(replay, "release-approval", body=body, ticket=arguments.ticket)
    keep_release(deployment, statements)
    results = settle(arguments, deployment, replay, [(payload, [])])
    return tell(arguments, results, f"release {body['release_sha256'][:12]} approved")


def _canaries(arguments: argparse.Namespace) -> int:
    from ironbound.terminal.canaries import needed

    deployment = deployment_of(arguments)
    replay = operators.replayed(deployment)
    payloads = []
    for document, module in needed(deployment, replay):
        body = approval_body(module, document)
        payload = operators.build(
            replay, "module-approval", module=sha256_hex(module), body=body, ticket=arguments.ticket
        )
        payloads.append((payload, [module]))
    if not payloads:
        note("every canary is approved already")
        return OK
    return tell(arguments, settle(arguments, deployment, replay, payloads), "canary approved")


def _call(arguments: argparse.Namespace) -> int:
    deployment = deployment_of(arguments)
    entries: dict[int, Entry] = {}
    replay = operators.replayed(deployment, lambda entry: entries.update({entry.index: entry}))
    entry = entries.get(arguments.index)
    wants = entry.predicate["wants"] if entry is not None and entry.kind == "action-denied" else None
    if entry is None or wants is None:
        raise Stop(f"entry {arguments.index} is no call that wants an approval", "`ironbound log` shows the denials")
    grant = replay.books.grants.get(wants["grant"])
    if grant is None:
        raise Stop(f"entry {arguments.index} names a grant that there is not")
    payload = operators.build(
        replay,
        "call-approval",
        agent=grant.agent,
        module=grant.module,
        config=grant.config,
        body={"grant": grant.id, "tool": grant.tool, "args": wants["args"]},
        ticket=arguments.ticket,
    )
    results = settle(arguments, deployment, replay, [(payload, [])])
    return tell(arguments, results, f"one call of {grant.tool} by {grant.agent} approved")


COMMANDS: Final = (
    Command(
        "approve profile",
        _profile,
        "Approve a profile.",
        "ironbound approve profile strict.toml site.toml --sign ada --sign bo",
        (*SIGNED, option("files", type=Path, nargs="+", metavar="FILE", help="the base, then overrides")),
    ),
    Command(
        "approve module",
        _module,
        "Approve a module.",
        "ironbound approve module agent.wasm --sign ada",
        (*SIGNED, option("file", type=Path, metavar="FILE")),
    ),
    Command(
        "approve release",
        _release,
        "Approve a release with the configuration of the services.",
        "ironbound approve release dist --sign ada --sign bo",
        (*SIGNED, option("folder", type=Path, metavar="DIR", help="what `./dev release` made")),
    ),
    Command(
        "approve call",
        _call,
        "Approve one call that an agent tried.",
        "ironbound approve call 1234 --sign ada",
        (*SIGNED, option("index", type=count, metavar="INDEX", help="the log's entry that denied the call")),
    ),
    Command("approve canaries", _canaries, "Approve the canaries.", "ironbound approve canaries --sign ada", SIGNED),
)
