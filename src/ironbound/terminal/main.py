"""The command line: `ironbound COMMAND`. Lists the commands, parses, dispatches, speaks; decides nothing."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Sequence
from typing import Final

from ironbound.core.authority import Refused
from ironbound.core.canonical import FormatError
from ironbound.core.profile import ProfileRefused
from ironbound.wire.deployment import DeploymentError

from .arguments import make_parser
from .commands import (
    agents,
    approving,
    deployments,
    evidence,
    explaining,
    images,
    people,
    proving,
    reading,
    scanning,
    signing,
    surface,
    tracing,
    waiting,
)
from .voice import OK, Stop, complain, say

#: Exit codes of what a signal ends, as a shell has them: no code of `verify`, so nobody takes them for a verdict.
INTERRUPTED: Final = 130
UNREAD: Final = 141

USAGE: Final = """\
ironbound runs agents that cannot raise their own privileges, and proves it.

  ironbound init DIR                       make a deployment: keys, trust root, log; prints the pin
  ironbound operator key FILE              what a trust root would hold of an operator's own key
  ironbound operator passkey NAME          make a passkey on a page here, for a deployment made elsewhere
  ironbound operator new NAME              make an operator's key file, on their own machine
  ironbound roster                         who may consent to what, with which keys
  ironbound roster propose [--add NAME=FILE] [--remove NAME] [--quorum ACT=N]...
  ironbound roster flag KEYID --since INDEX   what a stolen key signed since then no longer counts
  ironbound roster review GRANT            look at what sealed keys granted, within 72 hours
  ironbound up                             run its services until Ctrl-C
  ironbound status | agents | grants | log what the log says now
  ironbound trace AGENT                    each link from the signed release to its launches' ends
  ironbound approve profile FILE...        approve a profile (base, then overrides)
  ironbound approve module FILE            approve an agent's code, by digest
  ironbound approve canaries               approve the hostile agents that test the sandbox
  ironbound approve release DIR            approve a release with the configuration of the services
  ironbound approve call INDEX             approve one call that was denied for want of it
  ironbound explain FILE...                what each line of a profile does, and what enforces it
  ironbound image load PATH [-- ARG...]    a native agent's root file system: a folder or an OCI image
  ironbound image list                     the images here, each checked
  ironbound image kernel                   the kernel that virtual machines boot
  ironbound surface FILE                   what an agent's code imports, exports and could reach
  ironbound surface --agent-channel        all that an agent can say, and what each is for
  ironbound scan [PATH]                    what any product takes from outside, and the switches in it
  ironbound run MODULE --as AGENT --profile NAME
  ironbound stop AGENT
  ironbound grant AGENT ACTION [--tool NAME] [--where ARG=VALUE]... [--calls N] [--for 8h]
  ironbound revoke GRANT
  ironbound quota AGENT | quota --all [--rate N/LENGTH]   how many calls an agent, or all of them, can make
  ironbound requests                       what was proposed with --propose, and waits for approvals
  ironbound requests show ID | requests approve ID | requests decline ID
  ironbound sign FILE | submit FILE        approve, and send, a request that was written with --out
  ironbound credential NAME --url URL      keep an upstream credential at the gateway
  ironbound canary run                     every probe, now
  ironbound prove                          the non-escalation proof, from the installed kernel
  ironbound evidence export -o FILE        everything an auditor needs, in one file
  ironbound evidence report FILE -o HTML   a page for people, which checks itself in the browser
  ironbound evidence report FILE --oscal DIR [--controls FILE]   the same for programs
  ironbound verify FILE --pin PIN          check it, offline: 0 holds, 1 refuted, 3 broken, 4 unproven
  ironbound demo [--org] [--out DIR]       all of it, in a minute, for real

Example:
  ironbound init prod && ironbound up -d prod
Every command has --help with an example; most have --json and -d DIR (the deployment; default: here).
"""

GROUPS: Final = {
    "approve": ("Approve a profile, a module, the canaries or one call.", "ironbound approve module agent.wasm"),
    "image": ("Root file systems of native agents.", "ironbound image list -d prod"),
    "canary": ("The hostile agents.", "ironbound canary run -d prod"),
    "operator": ("Operators' keys.", "ironbound operator key id_ed25519_sk.pub --deployment-id prod-1f2e3d"),
    "roster": ("The people of the trust root.", "ironbound roster -d prod"),
    "requests": ("Requests that wait for approvals.", "ironbound requests -d prod"),
    "evidence": ("Evidence.", "ironbound evidence export -o evidence.ironbound"),
}
"""The first words of commands that have two: what they are about, and an example."""

COMMANDS: Final = (
    *deployments.COMMANDS,
    *people.COMMANDS,
    *reading.COMMANDS,
    *tracing.COMMANDS,
    *approving.COMMANDS,
    *explaining.COMMANDS,
    *images.COMMANDS,
    *surface.COMMANDS,
    *scanning.COMMANDS,
    *agents.COMMANDS,
    *signing.COMMANDS,
    *waiting.COMMANDS,
    *proving.COMMANDS,
    *evidence.COMMANDS,
)


def parser() -> argparse.ArgumentParser:
    """The parser of every command."""
    return make_parser(USAGE, GROUPS, COMMANDS)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code."""
    words = list(sys.argv[1:] if argv is None else argv)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal may lack ✓
    try:
        if words[:1] == ["verify"]:
            from ironbound.verifier.__main__ import main as verify

            return verify(words[1:])
        arguments = parser().parse_args(words)
        if arguments.command is None:
            say(USAGE.rstrip())
            return OK
        return int(arguments.run(arguments))
    except Stop as error:
        return complain(error)
    except ProfileRefused as error:
        return complain(Stop(str(error).removesuffix(f" (hint: {error.hint})"), error.hint))
    except OSError as error:
        if isinstance(error, BrokenPipeError) and _is_unread():
            return UNREAD
        named = error.filename and error.strerror
        return complain(Stop(f"{error.filename}: {error.strerror}" if named else str(error)))
    except (DeploymentError, FormatError, Refused) as error:
        return complain(Stop(str(error)))
    except KeyboardInterrupt:
        print(file=sys.stderr)
        return INTERRUPTED


def _is_unread() -> bool:
    """Whether whoever read standard output has gone (`… | head`); what is left for it is dropped then."""
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return True
    return False


if __name__ == "__main__":
    sys.exit(main())
