"""What was said in the log, indexed for reading.

Decides nothing: the kernel's state says what holds, and these only remember what was said of it. They are a part of
each snapshot (`snapshot`), by the types that their fields declare.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .canonical import Digest, canonical, sha256_hex
from .constraint import Where
from .oidc import IssuerKeys
from .proposal import Proposal
from .request import Consent, Signatory


@dataclass(frozen=True, slots=True)
class Entry:
    """One entry as replayed. `void` is the reason why it has no effect, or None if it has.

    `role` is the service that signed it ("operators" for the trust root, "" if nobody known did); `voiced` is true if
    that service may say this, here, for the first time: what is void then is so for what it says.
    """

    index: int
    data: bytes
    kind: str
    role: str
    predicate: Mapping[str, Any]
    consent: Consent | None = None
    void: str | None = None
    detail: str = ""
    voiced: bool = True


@dataclass(frozen=True, slots=True)
class Launch:
    """A launch that was admitted at `index`, with the indexes of what became of it (-1: not yet)."""

    index: int
    agent: str
    module: Digest
    config: Digest
    nonce: str | None
    humans: tuple[str, ...]
    expires_ms: int
    started: int = -1
    ended: int = -1


@dataclass(frozen=True, slots=True)
class Grant:
    """A grant as its request, or the agent that handed it on, says it; whether it still holds, only the kernel knows.

    `humans` signed it, or that which it is a part of; `parent` is the grant that an agent took it from.
    """

    index: int
    id: str
    agent: str
    module: Digest
    config: Digest
    tool: str
    action: str
    where: Where
    where_value: Any
    calls: int
    expires_ms: int
    credential: str | None
    humans: tuple[str, ...]
    rate: Mapping[str, int] | None
    budget: Mapping[str, Any] | None
    approvals: int
    delegable: int
    parent: str | None = None


@dataclass(frozen=True, slots=True)
class Approved:
    """A module or a profile that the quorum approved by digest; `surface` is that of the module's document."""

    index: int
    name: str
    humans: tuple[str, ...]
    probe: Any = None
    surface: str | None = None


@dataclass(frozen=True, slots=True)
class Release:
    """A release that the quorum approved, with the services' configuration and what the release key signed, by kind."""

    index: int
    release: Digest
    settings: Digest
    statements: Mapping[str, str]
    humans: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Host:
    """What the monitor found of a service last: its process, and how many differences from the signed manifest."""

    index: int
    pid: int
    pid_start: int
    differences: int


@dataclass(frozen=True, slots=True)
class Act:
    """What gave power: a request of this kind, the id or digest that it is about, the quorums that it had to meet."""

    kind: str
    about: str
    bars: tuple[tuple[int, tuple[Signatory, ...]], ...]


@dataclass(frozen=True, slots=True)
class BrokenGlass:
    """A grant by sealed keys: its entry, its request's digest, and the entries in which the quorum reviewed it."""

    index: int
    request: Digest
    reviews: tuple[int, ...] = ()


@dataclass(slots=True)
class Books:
    """What was said, indexed for reading. The authority decides; these only remember.

    `started` holds what the node said of the launches that run now, by the index of that entry; `challenges` what the
    monitor asked, by the index of the challenge, and `answered` which of them have a result; `signed` who stands behind
    what was admitted, by its index, and `acts` what of it gave power; `broken_glass` the grants by sealed keys;
    `release` is what the node runs, by its own word (`approved_as`), `hosts` what the monitor found of each service;
    `issuers` the identity providers' keys, as controller and monitor said them last.
    """

    launches: dict[int, Launch] = field(default_factory=dict)
    grants: dict[str, Grant] = field(default_factory=dict)
    grants_of: dict[str, dict[str, None]] = field(default_factory=dict)
    modules: dict[str, Approved] = field(default_factory=dict)
    profiles: dict[str, Approved] = field(default_factory=dict)
    started: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    challenges: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    answered: set[int] = field(default_factory=set)
    open_intents: dict[int, Mapping[str, Any]] = field(default_factory=dict)
    signed: dict[int, tuple[Signatory, ...]] = field(default_factory=dict)
    acts: dict[int, Act] = field(default_factory=dict)
    broken_glass: dict[str, BrokenGlass] = field(default_factory=dict)
    approved_calls: dict[tuple[str, str], list[str]] = field(default_factory=dict)
    quotas: dict[str, Mapping[str, int] | None] = field(default_factory=dict)  # by agent; "" for all together
    releases: dict[Digest, Release] = field(default_factory=dict)
    release: Digest = Digest("unsaid")
    hosts: dict[str, Host] = field(default_factory=dict)
    proposals: dict[Digest, Proposal] = field(default_factory=dict)  # by the request's digest
    kinds: list[str] = field(default_factory=list)
    void: dict[int, str] = field(default_factory=dict)
    issuers: dict[str, IssuerKeys] = field(default_factory=dict)


def approved_as(release: str, settings: str, manifest: str) -> Digest:
    """What a quorum approves as one: a release, the services' configuration, and the manifest of its installation."""
    return sha256_hex(canonical([release, settings, manifest]))
