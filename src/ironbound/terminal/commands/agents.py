"""`ironbound run`, `stop`, `grant`, `quota` and `revoke`: an agent's life and powers, as operators sign them."""

from __future__ import annotations

import argparse
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final

from ironbound.core.canonical import Digest, sha256_hex
from ironbound.core.channel import HARMLESS
from ironbound.core.replay import Replay
from ironbound.terminal import operators
from ironbound.terminal.arguments import Command, age_ms, budget, constraint, count, deployment_of, option, rate
from ironbound.terminal.voice import Stop, usage
from ironbound.wire.deployment import MAX_ARTIFACT, read_file

from .signing import SIGNED, settle, tell


def _profile_named(replay: Replay, name: str) -> Digest:
    found = [digest for digest, approved in replay.books.profiles.items() if approved.name == name]
    if not found:
        known = ", ".join(sorted({one.name for one in replay.books.profiles.values()})) or "none"
        raise Stop(f"no approved profile is called {name!r}", f"approved: {known}")
    return Digest(found[-1])


def _run(arguments: argparse.Namespace) -> int:
    deployment = deployment_of(arguments)
    replay = operators.replayed(deployment)
    digest = sha256_hex(read_file(arguments.module, MAX_ARTIFACT))
    payload = operators.build(
        replay,
        "launch-request",
        agent=arguments.agent,
        module=digest,
        config=_profile_named(replay, arguments.profile),
        ticket=arguments.ticket,
    )
    return tell(
        arguments, settle(arguments, deployment, replay, [(payload, [])]), f"launch of {arguments.agent} admitted"
    )


def _latest(replay: Replay, agent: str) -> Any:
    launches = [one for one in replay.books.launches.values() if one.agent == agent]
    if not launches:
        known = ", ".join(sorted({one.agent for one in replay.books.launches.values() if one.nonce is None})) or "none"
        raise Stop(f"no agent {agent!r} was ever launched", f"launched: {known}")
    return launches[-1]


def _stop(arguments: argparse.Namespace) -> int:
    deployment = deployment_of(arguments)
    replay = operators.replayed(deployment)
    launch = _latest(replay, arguments.agent)
    payload = operators.build(
        replay, "stop", agent=arguments.agent, module=launch.module, config=launch.config, ticket=arguments.ticket
    )
    return tell(arguments, settle(arguments, deployment, replay, [(payload, [])]), f"stop of {arguments.agent}")


def _grant(arguments: argparse.Namespace) -> int:
    from ironbound.wire.log import now_ms

    if arguments.action not in HARMLESS["actions"]:
        near = get_close_matches(arguments.action, HARMLESS["actions"], 1, 0)[0]
        usage(f"agents have no action {arguments.action}", f"nearest: {near}; all: `ironbound surface --agent-channel`")
    deployment = deployment_of(arguments)
    replay = operators.replayed(deployment)
    launch = _latest(replay, arguments.agent)
    where = dict(arguments.where)
    if len(where) != len(arguments.where):
        usage("an argument is constrained twice")
    payload = operators.build(
        replay,
        "grant",
        agent=arguments.agent,
        module=launch.module,
        config=launch.config,
        body={
            "tool": arguments.tool or arguments.action,
            "action": arguments.action,
            "where": where,
            "calls": arguments.calls,
            "expires_ms": now_ms() + arguments.life,
            "credential": arguments.credential,
            "rate": arguments.rate,
            "budget": arguments.budget,
            "approvals": arguments.approvals,
            "delegable": arguments.delegable,
        },
        ticket=arguments.ticket,
    )
    results = settle(arguments, deployment, replay, [(payload, [])])
    return tell(arguments, results, f"grant {results[0].get('id', '')} to {arguments.agent}")


def _quota(arguments: argparse.Namespace) -> int:
    if (arguments.agent is None) == (not arguments.all):
        usage("whose quota?", "name an agent, or --all for all of them together")
    deployment = deployment_of(arguments)
    replay = operators.replayed(deployment)
    before = replay.books.quotas.get(arguments.agent or "")
    if before == arguments.rate:
        raise Stop("that is the quota already", "`ironbound status` shows the quotas")
    payload = operators.build(
        replay,
        "quota",
        agent=arguments.agent,
        body={"before": before, "after": arguments.rate},
        ticket=arguments.ticket,
    )
    whose = arguments.agent or "all agents together"
    return tell(arguments, settle(arguments, deployment, replay, [(payload, [])]), f"quota of {whose} set")


def _revoke(arguments: argparse.Namespace) -> int:
    deployment = deployment_of(arguments)
    replay = operators.replayed(deployment)
    grant = replay.books.grants.get(arguments.grant)
    if grant is None:
        raise Stop(f"no grant {arguments.grant!r}", "`ironbound grants` lists them")
    payload = operators.build(
        replay,
        "revocation",
        agent=grant.agent,
        module=grant.module,
        config=grant.config,
        body={"grant": grant.id},
        ticket=arguments.ticket,
    )
    return tell(arguments, settle(arguments, deployment, replay, [(payload, [])]), f"grant {grant.id} revoked")


COMMANDS: Final = (
    Command(
        "run",
        _run,
        "Launch an agent.",
        "ironbound run agent.wasm --as triage --profile strict --sign ada",
        (
            *SIGNED,
            option("module", type=Path, metavar="MODULE"),
            option("--as", dest="agent", required=True, metavar="AGENT"),
            option("--profile", required=True, metavar="NAME", help="an approved profile"),
        ),
    ),
    Command(
        "stop", _stop, "Stop an agent.", "ironbound stop triage --sign ada", (*SIGNED, option("agent", metavar="AGENT"))
    ),
    Command(
        "grant",
        _grant,
        "Grant an action to a launched agent.",
        "ironbound grant triage http.request --tool records.fetch --where host=127.0.0.1 --where method=GET"
        " --calls 50 --for 8h --sign ada --sign bo",
        (
            *SIGNED,
            option("agent", metavar="AGENT"),
            option("action", metavar="ACTION"),
            option("--tool", metavar="NAME", help="what the agent calls it (default: the action)"),
            option("--where", action="append", default=[], type=constraint, metavar="ARG=…", help="what is allowed"),
            option("--calls", type=count, default=1, metavar="N", help="how often (default: once)"),
            option("--for", dest="life", type=age_ms, default=age_ms("1h"), metavar="8h", help="how long (default 1h)"),
            option("--credential", metavar="NAME", help="the gateway's credential to use"),
            option("--rate", type=rate, metavar="N/LENGTH", help="N calls at once, then N in that time, as 5/1m"),
            option("--budget", type=budget, metavar="ALL/EACH:UNIT", help="what calls may cost, as 9000/500:bytes"),
            option("--approvals", type=count, default=0, metavar="N", help="operators that each call needs"),
            option("--delegable", type=count, default=0, metavar="N", help="how often agents may hand it on"),
        ),
    ),
    Command(
        "quota",
        _quota,
        "Set a quota: how many calls an agent can make, whatever its grants.",
        "ironbound quota triage --rate 500/1h --sign ada --sign bo",
        (
            *SIGNED,
            option("agent", nargs="?", metavar="AGENT"),
            option("--all", action="store_true", help="all agents of the deployment together"),
            option("--rate", type=rate, metavar="N/LENGTH", help="N calls at once, then N in that time; else none"),
        ),
    ),
    Command(
        "revoke",
        _revoke,
        "Revoke a grant, for good.",
        "ironbound revoke 3f…9a --sign ada",
        (*SIGNED, option("grant", metavar="GRANT")),
    ),
)
