"""Keeps an upstream credential in the gateway's own file: bound to one scheme, host, port and path."""

from __future__ import annotations

import os
from typing import Any

from ironbound.core.canonical import FormatError, canonical, parse_json
from ironbound.gateway.action import ArgumentsRefused
from ironbound.gateway.credentials import parse_credentials
from ironbound.gateway.providers.http import parse_url
from ironbound.wire.deployment import MAX_FILE, Deployment, read_file

from .voice import Stop


def bound(url: str, header: str) -> dict[str, Any]:
    """What a credential is bound to: scheme, host, port and path of a URL, and a header. Stop if it is no such URL."""
    try:
        where = parse_url(url)
    except ArgumentsRefused as error:
        raise Stop(f"{url}: {error.message}", "such as --url https://records.example.org/v1") from error
    if where.get("query"):
        raise Stop(f"{url}: a credential is bound to a path, not to a query")
    binding = {key: where[key] for key in ("scheme", "host", "port")}
    binding["path"] = str(where["path"]).rstrip("/")
    return binding | {"header": header.lower()}


def keep(deployment: Deployment, name: str, binding: dict[str, Any], value: str) -> None:
    """Add or replace the credential `name`, bound as `bound` says. Stop if the gateway would refuse it."""
    path = deployment.root / "credentials.json"
    known = parse_json(read_file(path), limit=MAX_FILE)
    if not isinstance(known, dict):
        raise Stop(f"{path} is no object of credentials")
    data = canonical({**known, name: {**binding, "value": value}}) + b"\n"
    try:
        parse_credentials(data)
    except FormatError as error:
        raise Stop(f"credential {name}: {error}") from error
    draft = path.with_name(".credentials.draft")
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
        os.fchmod(file.fileno(), 0o400)
        if deployment.separated:
            os.fchown(file.fileno(), deployment.uid("gateway"), deployment.uid("gateway"))
    os.replace(draft, path)
