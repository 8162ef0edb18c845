"""The command line: `ironbound COMMAND`. Parses, dispatches, speaks; decides nothing."""

from __future__ import annotations

import argparse
import asyncio
import getpass
import os
import re
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from ironbound import __version__
from ironbound.core.authority import Refused
from ironbound.core.canonical import Digest, FormatError, sha256_hex
from ironbound.core.profile import Layer, ProfileRefused, merge
from ironbound.core.replay import Replay
from ironbound.core.surface import approval_body
from ironbound.core.trust import CANARY_INTERVAL_MS, PRODUCTION
from ironbound.wire.deployment import MAX_ARTIFACT, Deployment, DeploymentError, load, read_file

from . import images, operators, show, surface
from .voice import FAILED, OK, Stop, complain, emit, note, paint, passphrases, say, usage

USAGE: Final = """\
ironbound runs agents that cannot raise their own privileges, and proves it.

  ironbound init DIR                       make a deployment: keys, trust root, log; prints the pin
  ironbound up                             run its services until Ctrl-C
  ironbound status | agents | grants | log what the log says now
  ironbound approve profile FILE...        approve a profile (base, then overrides)
  ironbound approve module FILE            approve an agent's code, by digest
  ironbound approve canaries               approve the hostile agents that test the sandbox
  ironbound image load PATH [-- ARG...]    a native agent's root file system: a folder or an OCI image
  ironbound image list                     the images here, each checked
  ironbound image kernel                   the kernel that virtual machines boot
  ironbound surface FILE                   what an agent's code imports, exports and could reach
  ironbound run MODULE --as AGENT --profile NAME
  ironbound stop AGENT
  ironbound grant AGENT ACTION [--tool NAME] [--where ARG=VALUE]... [--calls N] [--for 8h]
  ironbound revoke GRANT
  ironbound sign FILE | submit FILE        approve, and send, a request that was written with --out
  ironbound credential NAME --url URL      keep an upstream credential at the gateway
  ironbound canary run                     every probe, now
  ironbound evidence export -o FILE        everything an auditor needs, in one file
  ironbound verify FILE --pin PIN          check it, offline: 0 holds, 1 refuted, 3 broken, 4 unproven
  ironbound demo [--out DIR]               all of it, in a minute, for real

Example:
  ironbound init prod && ironbound up -d prod
Every command has --help with an example; most have --json and -d DIR (the deployment; default: here).
"""

_AGE: Final = re.compile(r"([1-9][0-9]{0,5})(s|m|h|d)")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86400}


def age_ms(text: str) -> int:
    """Milliseconds of a length of time such as 90s, 15m, 8h, 2d."""
    match = _AGE.fullmatch(text)
    if not match:
        raise argparse.ArgumentTypeError(f"{text!r} is no length of time; write it as 90s, 15m, 8h or 2d")
    return int(match[1]) * _SECONDS[match[2]] * 1000


def count(text: str) -> int:
    """A whole number from 0 on, in plain digits."""
    if not re.fullmatch(r"[0-9]{1,12}", text):
        raise argparse.ArgumentTypeError(f"{text!r} is no whole number from 0 on")
    return int(text)


def constraint(text: str) -> tuple[str, Any]:
    """ARG=VALUE, ARG=a|b|c, ARG=/pre/fix/*, ARG=1..10 or ARG=* as a grant's constraint."""
    name, found, value = text.partition("=")
    if not found or not name or not value:
        raise argparse.ArgumentTypeError(f"{text!r}: write ARG=VALUE, ARG=a|b, ARG=/path/*, ARG=1..10 or ARG=*")
    bounds = re.fullmatch(r"(\d{1,15})\.\.(\d{1,15})", value)
    if value == "*":
        return name, {"any": True}
    if bounds:
        return name, {"range": {"min": int(bounds[1]), "max": int(bounds[2])}}
    if value.endswith("/*"):
        return name, {"prefix": {"value": value[:-2], "separator": "/"}}
    if "|" in value:
        return name, {"one_of": [_scalar(name, one) for one in value.split("|")]}
    return name, {"equals": _scalar(name, value)}


def _scalar(name: str, text: str) -> str | int:
    """A port is a number; everything else that a provider takes is text."""
    return int(text) if name == "port" and text.isdecimal() and len(text) < 6 else text


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> Any:
        usage(message, f"see `{self.prog} --help`")

    def format_help(self) -> str:
        return USAGE if self.prog == "ironbound" else super().format_help()


class _ProgramParser(_Parser):
    """For commands with a default for `argv`: what stands behind `--` is a program's, wherever the options stand."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = list(args or ())
        if "--" not in words or self.get_default("argv") is None:
            return super().parse_known_args(words, namespace)
        at = words.index("--")
        found, rest = super().parse_known_args(words[:at], namespace)
        found.argv = words[at + 1 :]
        return found, rest


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(prog="ironbound", allow_abbrev=False)
    parser.add_argument("--version", action="version", version=f"ironbound {__version__}")
    commands = parser.add_subparsers(dest="command", metavar="COMMAND", parser_class=_Parser)

    def command(
        name: str, run: Callable[[argparse.Namespace], int], about: str, example: str, into: Any = commands
    ) -> argparse.ArgumentParser:
        made: argparse.ArgumentParser = into.add_parser(
            name,
            help=about,
            description=about,
            epilog=f"example: {example}",
            allow_abbrev=False,
        )
        made.set_defaults(run=run)
        return made

    def placed(made: argparse.ArgumentParser, as_json: bool = True) -> argparse.ArgumentParser:
        made.add_argument("-d", "--deployment", type=Path, default=Path("."), metavar="DIR", help="the deployment")
        if as_json:
            made.add_argument("--json", action="store_true", help="machine-readable output")
        return made

    def signed(made: argparse.ArgumentParser) -> argparse.ArgumentParser:
        placed(made)
        made.add_argument(
            "--sign", action="append", default=[], metavar="NAME", help="operator; the first asks, the others approve"
        )
        made.add_argument("--keys", type=Path, metavar="DIR", help="folder of the operators' keys")
        made.add_argument("--passphrase-fd", type=int, metavar="N", help="passphrases, a line for each operator")
        made.add_argument("--ticket", default="", metavar="TEXT", help="your reference, signed with it")
        made.add_argument("--out", type=Path, metavar="FILE", help="write the signed request, don't send it")
        return made

    init = command("init", _init, "Make a deployment.", "ironbound init prod --operator ada --operator bo --quorum 2")
    init.add_argument("directory", type=Path, metavar="DIR")
    init.add_argument("--name", metavar="ID", help="deployment id (default: the folder's name and six random digits)")
    init.add_argument(
        "--environment", default=PRODUCTION, metavar="NAME", help=f"what it is for (default: {PRODUCTION})"
    )
    init.add_argument("--tpm", metavar="ADDRESS", help="the node's TPM: /dev/tpmrm0, or swtpm:PATH (default: none)")
    init.add_argument(
        "--canary-interval",
        type=age_ms,
        default=CANARY_INTERVAL_MS,
        metavar="15m",
        help="each canary bites once in each interval (default 15m)",
    )
    init.add_argument("--operator", action="append", default=[], metavar="NAME", help="a human (default: you)")
    init.add_argument("--quorum", type=int, default=1, metavar="N", help="how many humans it takes (default 1)")
    init.add_argument("--keys", type=Path, metavar="DIR", help="where the operators' keys go (default: inside)")
    init.add_argument("--passphrase-fd", type=int, metavar="N", help="passphrases, a line for each operator")
    init.add_argument("--json", action="store_true", help="machine-readable output")

    placed(command("up", _up, "Run the services until Ctrl-C.", "ironbound up -d prod"), as_json=False)
    for name, about, printer in (
        ("status", "The deployment in a few numbers.", show.print_status),
        ("agents", "Every launch and its state.", show.print_agents),
        ("grants", "Every grant and what is left of it.", show.print_grants),
    ):
        placed(command(name, _shower(printer), about, f"ironbound {name} -d prod"))
    log = placed(command("log", _log, "The log's entries.", "ironbound log -d prod --last 20"))
    log.add_argument("--last", type=count, default=50, metavar="N", help="how many (default 50; 0: all)")

    approve = command(
        "approve", _never, "Approve a profile, a module or the canaries.", "ironbound approve module agent.wasm"
    )
    what = approve.add_subparsers(dest="what", metavar="WHAT", parser_class=_Parser, required=True)
    profile = signed(
        command(
            "profile",
            _approve_profile,
            "Approve a profile.",
            "ironbound approve profile strict.toml site.toml --sign ada --sign bo",
            what,
        )
    )
    profile.add_argument("files", type=Path, nargs="+", metavar="FILE", help="the base, then overrides")
    module = signed(
        command("module", _approve_module, "Approve a module.", "ironbound approve module agent.wasm --sign ada", what)
    )
    module.add_argument("file", type=Path, metavar="FILE")
    signed(
        command("canaries", _approve_canaries, "Approve the canaries.", "ironbound approve canaries --sign ada", what)
    )

    surface.add_command(command)
    run = signed(
        command("run", _run, "Launch an agent.", "ironbound run agent.wasm --as triage --profile strict --sign ada")
    )
    run.add_argument("module", type=Path, metavar="MODULE")
    run.add_argument("--as", dest="agent", required=True, metavar="AGENT")
    run.add_argument("--profile", required=True, metavar="NAME", help="an approved profile")
    stop = signed(command("stop", _stop, "Stop an agent.", "ironbound stop triage --sign ada"))
    stop.add_argument("agent", metavar="AGENT")
    grant = signed(
        command(
            "grant",
            _grant,
            "Grant an action to a launched agent.",
            "ironbound grant triage http.request --tool records.fetch --where host=127.0.0.1 --where method=GET"
            " --calls 50 --for 8h --sign ada --sign bo",
        )
    )
    grant.add_argument("agent", metavar="AGENT")
    grant.add_argument("action", metavar="ACTION")
    grant.add_argument("--tool", metavar="NAME", help="what the agent calls it (default: the action)")
    grant.add_argument("--where", action="append", default=[], type=constraint, metavar="ARG=…", help="what is allowed")
    grant.add_argument("--calls", type=count, default=1, metavar="N", help="how often (default: once)")
    grant.add_argument(
        "--for", dest="life", type=age_ms, default=age_ms("1h"), metavar="8h", help="how long (default 1h)"
    )
    grant.add_argument("--credential", metavar="NAME", help="the gateway's credential to use")
    revoke = signed(command("revoke", _revoke, "Revoke a grant, for good.", "ironbound revoke 3f…9a --sign ada"))
    revoke.add_argument("grant", metavar="GRANT")
    sign = signed(command("sign", _sign, "Approve a request in a file.", "ironbound sign request.json --sign bo"))
    sign.add_argument("file", type=Path, metavar="FILE")
    submit = placed(command("submit", _submit, "Send a request in a file.", "ironbound submit request.json -d prod"))
    submit.add_argument("file", type=Path, metavar="FILE")

    credential = placed(
        command(
            "credential",
            _credential,
            "Keep an upstream credential at the gateway; it takes effect at its next start.",
            "ironbound credential records --url http://127.0.0.1:8801/records --value-fd 3 3<token",
        )
    )
    credential.add_argument("name", metavar="NAME")
    credential.add_argument("--url", required=True, metavar="URL", help="scheme, host, port and path that it is for")
    credential.add_argument("--header", default="Authorization", metavar="NAME")
    credential.add_argument("--value-fd", type=int, metavar="N", help="the header's value, a line (default: asked)")

    image = command("image", _never, "Root file systems of native agents.", "ironbound image list -d prod")
    kinds = image.add_subparsers(dest="what", metavar="WHAT", parser_class=_ProgramParser, required=True)
    images.add_commands(command, placed, kinds)
    canary = command("canary", _never, "The hostile agents.", "ironbound canary run -d prod")
    probes = canary.add_subparsers(dest="what", metavar="WHAT", parser_class=_Parser, required=True)
    now = placed(command("run", _canary_run, "Every probe, now, for real.", "ironbound canary run --all", probes))
    where = now.add_mutually_exclusive_group()
    where.add_argument("--all", dest="every", action="store_true", help="on every approved profile (default: in use)")
    where.add_argument("--profile", metavar="NAME", help="on this approved profile")
    evidence = command("evidence", _never, "Evidence.", "ironbound evidence export -o evidence.ironbound")
    exports = evidence.add_subparsers(dest="what", metavar="WHAT", parser_class=_Parser, required=True)
    export = placed(
        command("export", _export, "Write the file.", "ironbound evidence export -d prod -o e.ironbound", exports)
    )
    export.add_argument("-o", "--out", type=Path, required=True, metavar="FILE")
    command("verify", _never, "Check an evidence file.", 'ironbound verify e.ironbound --pin "$(cat pin.txt)"')
    demo = command("demo", _demo, "Everything, for real, in a minute.", "ironbound demo --out /tmp/demo")
    demo.add_argument("--out", type=Path, metavar="DIR", help="keep evidence, pin and deployment there")
    return parser


def _never(arguments: argparse.Namespace) -> int:
    raise Stop("verify takes its own arguments")


def _deployment(arguments: argparse.Namespace) -> Deployment:
    return load(arguments.deployment.resolve())


def _init(arguments: argparse.Namespace) -> int:
    from .init import initialise

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
    from .up import up

    deployment = _deployment(arguments)
    asyncio.run(up(deployment, lambda role, text: note(f"{role}: {text}")))
    return OK


def _shower(printer: Callable[[Replay, bool], None]) -> Callable[[argparse.Namespace], int]:
    def run(arguments: argparse.Namespace) -> int:
        printer(operators.replayed(_deployment(arguments)), arguments.json)
        return OK

    return run


def _log(arguments: argparse.Namespace) -> int:
    deployment = _deployment(arguments)
    lines: list[dict[str, Any]] = []

    async def collect() -> None:
        log = await operators.folded(
            deployment, lambda entry: lines.append(show.entry_line(entry.index, entry.data, entry.void))
        )
        await log.close()

    asyncio.run(collect())
    show.print_log(lines[-arguments.last :] if arguments.last else lines, arguments.json)
    return OK


def _settle(
    arguments: argparse.Namespace, deployment: Deployment, payloads: Sequence[tuple[bytes, Sequence[bytes]]]
) -> list[dict[str, Any]]:
    """Sign each payload as the options say, and send it or write it to a file."""
    if not arguments.sign:
        usage("nobody signs", "name the operators with --sign NAME; the first asks, the others approve")
    keys = operators.load_keys(arguments.keys or deployment.root / "operators", arguments.sign, arguments.passphrase_fd)
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


def _tell(arguments: argparse.Namespace, results: Sequence[dict[str, Any]], what: str) -> int:
    if arguments.json:
        emit(results[0] if len(results) == 1 else list(results))
    else:
        for result in results:
            where = result.get("file") or f"entry {result['index']} ({', '.join(result['humans'])})"
            say(f"{what}: {where}")
    return OK


def _approve_profile(arguments: argparse.Namespace) -> int:
    deployment = _deployment(arguments)
    layers = [Layer(path.name, read_file(path)) for path in arguments.files]
    effective = merge(layers)
    payload = operators.build(
        operators.replayed(deployment),
        "profile-approval",
        config=effective.digest,
        body=effective.approval_body(),
        ticket=arguments.ticket,
    )
    results = _settle(arguments, deployment, [(payload, [effective.encoded])])
    return _tell(arguments, results, f"profile {effective.config['profile']} ({effective.digest[:12]}) approved")


def _approve_module(arguments: argparse.Namespace) -> int:
    deployment = _deployment(arguments)
    data = read_file(arguments.file, MAX_ARTIFACT)
    digest = sha256_hex(data)
    payload = operators.build(
        operators.replayed(deployment),
        "module-approval",
        module=digest,
        body=approval_body(data),
        ticket=arguments.ticket,
    )
    return _tell(arguments, _settle(arguments, deployment, [(payload, [data])]), f"module {digest[:12]} approved")


def _approve_canaries(arguments: argparse.Namespace) -> int:
    from .canaries import needed

    deployment = _deployment(arguments)
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
    return _tell(arguments, _settle(arguments, deployment, payloads), "canary approved")


def _profile_named(replay: Replay, name: str) -> Digest:
    found = [digest for digest, approved in replay.books.profiles.items() if approved.name == name]
    if not found:
        known = ", ".join(sorted({one.name for one in replay.books.profiles.values()})) or "none"
        raise Stop(f"no approved profile is called {name!r}", f"approved: {known}")
    return Digest(found[-1])


def _run(arguments: argparse.Namespace) -> int:
    deployment = _deployment(arguments)
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
    return _tell(arguments, _settle(arguments, deployment, [(payload, [])]), f"launch of {arguments.agent} admitted")


def _latest(replay: Replay, agent: str) -> Any:
    launches = [one for one in replay.books.launches.values() if one.agent == agent]
    if not launches:
        known = ", ".join(sorted({one.agent for one in replay.books.launches.values() if one.nonce is None})) or "none"
        raise Stop(f"no agent {agent!r} was ever launched", f"launched: {known}")
    return launches[-1]


def _stop(arguments: argparse.Namespace) -> int:
    deployment = _deployment(arguments)
    replay = operators.replayed(deployment)
    launch = _latest(replay, arguments.agent)
    payload = operators.build(
        replay, "stop", agent=arguments.agent, module=launch.module, config=launch.config, ticket=arguments.ticket
    )
    return _tell(arguments, _settle(arguments, deployment, [(payload, [])]), f"stop of {arguments.agent}")


def _grant(arguments: argparse.Namespace) -> int:
    from ironbound.wire.log import now_ms

    deployment = _deployment(arguments)
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
        },
        ticket=arguments.ticket,
    )
    results = _settle(arguments, deployment, [(payload, [])])
    return _tell(arguments, results, f"grant {results[0].get('id', '')} to {arguments.agent}")


def _revoke(arguments: argparse.Namespace) -> int:
    deployment = _deployment(arguments)
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
    return _tell(arguments, _settle(arguments, deployment, [(payload, [])]), f"grant {grant.id} revoked")


def _sign(arguments: argparse.Namespace) -> int:
    deployment = _deployment(arguments)
    submission = operators.read_submission(arguments.file)
    if not arguments.sign:
        usage("nobody signs", "name the operator with --sign NAME")
    for line in operators.shown(submission.request).splitlines():
        note(line)
    keys = operators.load_keys(arguments.keys or deployment.root / "operators", arguments.sign, arguments.passphrase_fd)
    approvals = tuple(operators.approve(submission.request, deployment.trust.deployment, key) for key in keys)
    signed = operators.Submission(submission.request, submission.approvals + approvals, submission.artifacts)
    target = arguments.out or arguments.file
    target.write_bytes(signed.encode() + b"\n")
    return _tell(arguments, [{"file": str(target), "approvals": len(signed.approvals)}], "approved")


def _submit(arguments: argparse.Namespace) -> int:
    deployment = _deployment(arguments)
    return _tell(arguments, [operators.submit(deployment, operators.read_submission(arguments.file))], "admitted")


def _credential(arguments: argparse.Namespace) -> int:
    from .credential import keep

    deployment = _deployment(arguments)
    value = passphrases(arguments.value_fd, [f"credential {arguments.name}"])[0]
    binding = keep(deployment, arguments.name, arguments.url, arguments.header, value.decode())
    if arguments.json:
        emit(binding)
    else:
        say(f"credential {arguments.name} kept for {arguments.url}; restart the gateway to use it")
    return OK


def _canary_run(arguments: argparse.Namespace) -> int:
    from .canaries import run_all

    return run_all(_deployment(arguments), arguments.json, arguments.every, arguments.profile)


def _export(arguments: argparse.Namespace) -> int:
    from ironbound.evidence.export import ExportError, export

    deployment = _deployment(arguments)
    last = 0

    def progress(done: int, total: int) -> None:
        nonlocal last
        if total > 5000 and done * 10 // total > last:
            last = done * 10 // total
            note(f"{done:,} of {total:,} entries")

    try:
        summary = export(deployment, arguments.out.resolve(), progress)
    except ExportError as error:
        raise Stop(str(error)) from error
    missing = [{"sha256": one.sha256, "what": one.what} for one in summary.missing]
    if arguments.json:
        emit({"file": str(arguments.out), "bytes": summary.file_bytes, "entries": summary.entries, "missing": missing})
    else:
        say(f"evidence   {arguments.out} ({summary.file_bytes:,} bytes, {summary.entries} entries)")
        for one in missing:
            say(paint(f"missing    {one['what']} {one['sha256']}", "yellow"))
    return OK


def _demo(arguments: argparse.Namespace) -> int:
    from .demo.run import demo

    return demo(arguments.out)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    try:
        if words[:1] == ["verify"]:
            from ironbound.verifier.__main__ import main as verify

            return verify(words[1:])
        arguments = _parser().parse_args(words)
        if arguments.command is None:
            say(USAGE.rstrip())
            return OK
        return int(arguments.run(arguments))
    except Stop as error:
        return complain(error)
    except ProfileRefused as error:
        return complain(Stop(str(error).removesuffix(f" (hint: {error.hint})"), error.hint))
    except (DeploymentError, FormatError, Refused, OSError) as error:
        return complain(Stop(str(error)))
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return FAILED


if __name__ == "__main__":
    sys.exit(main())
