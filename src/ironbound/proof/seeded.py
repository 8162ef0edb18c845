"""Seeded bugs of the kernel: data only. What catches them stands in `mutants`.

Rule 1: a patch fits exactly one place, so that a change of the kernel can't silently empty it.
Rule 2: a bug that changes nothing that anybody could notice is no bug, and is not listed.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Mutant:
    """One seeded bug: which module's text is changed where, and the lesson of the design that it is about (0: none)."""

    name: str
    module: str
    old: str
    new: str
    lesson: int = 0

    def apply(self, texts: Mapping[str, str]) -> dict[str, str]:
        """The sources with the bug. ValueError if it doesn't fit exactly one place."""
        found = texts[self.module].count(self.old)
        if found != 1:
            raise ValueError(f"{self.name}: fits {found} places")
        return {**texts, self.module: texts[self.module].replace(self.old, self.new)}


_A, _C, _L = "authority", "constraint", "logic"

MUTANTS: Final = tuple(
    Mutant(*one)
    for one in (
        # who may give
        ("one human is enough for a gift", _A, 'L.at_most(_get(L, s, "quorum", act), m["consents"])',
         'L.at_most(1, m["consents"])'),
        ("nobody is enough for a gift", _A, 'L.at_most(_get(L, s, "quorum", act), m["consents"])',
         'L.at_most(0, m["consents"])'),
        ("a grant takes the quorum of a profile", _A, '_giving(L, s, m, "grant")\n    yield from _grantable',
         '_giving(L, s, m, "profile")\n    yield from _grantable'),
        ("a launch takes the quorum of a module", _A, '_giving(L, s, m, "launch")', '_giving(L, s, m, "module")'),
        ("a module takes the quorum of a launch", _A, '_giving(L, s, m, "module")', '_giving(L, s, m, "launch")'),
        ("a profile needs nobody", _A, 'yield from _giving(L, s, m, "profile")', "yield from ()"),
        ("a request is used again", _A, 'L.neg(_get(L, s, "used", m["id"]))\n    yield "request-too-early"',
         'True\n    yield "request-too-early"', 5),
        ("a request is used up by nobody", _A, 'yield ("used", m["id"], True)\n    yield ("profile"',
         'yield ("used", m["id"], False)\n    yield ("profile"', 5),
        ("a request counts before its time", _A,
         'L.at_most(m["not_before"], now)', 'L.at_most(m["not_before"], m["expires"])'),
        ("a request lives a moment too long", _A, 'L.less(now, m["expires"])', 'L.at_most(now, m["expires"])'),
        ("a request lives as long as it likes", _A, 'L.plus(m["not_before"], MAX_REQUEST_LIFE_MS)', 'm["expires"]'),
        ("a signer need not have seen this log", _A, '"head-unknown", m["head_known"]', '"head-unknown", True'),
        ("a stale head will do", _A, 'L.at_most(_get(L, s, "agent_changed", m["agent"]), m["head"])',
         'L.at_most(0, m["head"])', 5),
        ("a change is dated before itself", _A, '("agent_changed", m["agent"], L.plus(m["index"], 1))',
         '("agent_changed", m["agent"], m["index"])', 5),
        # what may run
        ("a canary's code is taken for an agent's", _A,
         'L.when(m["canary"], CANARY_MODULE, AGENT_MODULE)', "AGENT_MODULE"),
        ("an approved module becomes another kind", _A, 'L.same(_get(L, s, "module", m["module"]), ABSENT)',
         'L.disj(L.same(_get(L, s, "module", m["module"]), ABSENT), m["canary"])'),
        ("the monitor runs an agent's code", _A, 'L.same(_get(L, s, "module", m["module"]), CANARY_MODULE)',
         'L.same(_get(L, s, "module", m["module"]), AGENT_MODULE)'),
        ("a challenge runs as an agent", _A, "yield from _admit(L, s, m, True)", "yield from _admit(L, s, m, False)"),
        ("a challenge takes over a running agent's name", _A, 'CANARY_MODULE)\n    yield "profile-not-approved", '
         '_get(L, s, "profile", m["config"])\n    yield "agent-already-running", L.neg(_active(L, s, _get(L, s, '
         '"agent_launch", m["agent"])))',
         'CANARY_MODULE)\n    yield "profile-not-approved", _get(L, s, "profile", m["config"])'),
        ("an admission lasts a moment too long", _A, 'L.less(_now(L, s, m), _get(L, s, "launch_expires", launch))',
         'L.at_most(_now(L, s, m), _get(L, s, "launch_expires", launch))'),
        ("an ended launch starts again", _A, 'L.same(_get(L, s, "launch_state", launch), ADMITTED)',
         'L.neg(L.same(_get(L, s, "launch_state", launch), STARTED))'),
        ("a start is for other code", _A, 'L.same(_get(L, s, "launch_module", launch), m["module"])',
         'L.same(_get(L, s, "launch_agent", launch), m["agent"])'),
        ("a start is for another cage", _A, 'L.same(_get(L, s, "launch_config", launch), m["config"])',
         'L.same(_get(L, s, "launch_agent", launch), m["agent"])'),
        ("an agent is launched twice at once", _A, "L.disj(L.same(state, ADMITTED), L.same(state, STARTED))",
         "L.same(state, STARTED)"),
        ("an end brings it back", _A,
         '("launch_state", m["launch"], ENDED)', '("launch_state", m["launch"], ADMITTED)'),
        # what a call needs
        ("who waits to start acts already", _A,
         '"agent-not-running", L.same(_get(L, s, "launch_state", launch), STARTED)',
         '"agent-not-running", _active(L, s, launch)'),
        ("who was ordered to stop acts on", _A, 'yield "launch-stopped", L.neg(_get(L, s, "launch_stopped", launch))\n'
         '    yield "canary', 'yield "canary'),
        ("anybody's grant will do", _A, 'L.same(_get(L, s, "grant_agent", grant), m["agent"])',
         'L.same(_get(L, s, "launch_agent", launch), m["agent"])', 7),
        ("a grant is not bound to its code", _A,
         'L.same(_get(L, s, "grant_module", grant), _get(L, s, "launch_module", launch))',
         "True"),
        ("a grant is not bound to its cage", _A,
         'L.same(_get(L, s, "grant_config", grant), _get(L, s, "launch_config", launch))',
         "True"),
        ("any tool's name", _A, 'L.same(_get(L, s, "grant_tool", grant), m["tool"])', "True"),
        ("any action", _A, 'L.same(_get(L, s, "grant_action", grant), m["action"])', "True"),
        ("any arguments", _A, 'L.covers(_get(L, s, "grant_where", grant), m["args"])', "True", 8),
        ("the clock is turned back", _A, 'return L.when(L.less(clock, m["now"]), m["now"], clock)', 'return m["now"]'),
        ("the clock stands still", _A, 'return ("clock", "", _now(L, s, m))',
         'return ("clock", "", _get(L, s, "clock", ""))'),
        # what a grant is
        ("a grant starts with nothing to spend", _A, '"grant-without-calls", L.less(0, m["calls"])',
         '"grant-without-calls", L.less(m["calls"], 0)', 6),
        ("a grant never expires", _A, '("grant_expires", m["id"], m["grant_expires"])',
         '("grant_expires", m["id"], L.plus(m["grant_expires"], 1))'),
        ("a grant has a call more than was signed", _A, '("grant_left", m["id"], m["calls"])',
         '("grant_left", m["id"], L.plus(m["calls"], 1))', 2),
        ("a grant of unapproved code", _A, '    yield "module-not-approved", L.same(_get(L, s, "module", m["module"]), '
         'AGENT_MODULE)\n    yield "profile-not-approved", _get(L, s, "profile", m["config"])\n    yield "grant-id-'
         'used"',
         '    yield "profile-not-approved", _get(L, s, "profile", m["config"])\n    yield "grant-id-used"'),
        # quotas
        ("a quota takes the quorum of a grant", _A, '_giving(L, s, m, "reconfigure")\n    yield from _unchanged',
         '_giving(L, s, m, "grant")\n    yield from _unchanged'),
        ("a quota is not asked", _A,
         'L.conj(_within_quota(L, s, m["agent"], now), _within_quota(L, s, "", now))', "True"),
        ("a quota has a call too many", _A, 'L.plus(now, _get(L, s, "quota_slack", agent))',
         'L.plus(L.plus(now, _get(L, s, "quota_slack", agent)), _get(L, s, "quota_every", agent))'),
        ("nobody asks for the quota of all together", _A, ', _within_quota(L, s, "", now)', "", 2),
        ("only the agent's quota is charged", _A, 'for whose in (m["agent"], ""):\n        yield ("quota_full"',
         'for whose in (m["agent"],):\n        yield ("quota_full"', 2),
        ("a quota comes back by a launch", _A, '    yield from _admit(L, s, m, False)\n',
         '    yield from _admit(L, s, m, False)\n    yield ("quota_full", m["agent"], 0)\n', 2),
        ("a quota has no pace", _A, 'yield ("quota_every", m["agent"], m["every"])',
         'yield ("quota_every", m["agent"], 0)'),
        # taking away
        ("a stop needs a running launch", _A,
         'Rule("stop", "operator", _guard_consent', 'Rule("stop", "operator", _guard_exit', 3),
        ("a stop stops nothing", _A, 'yield ("launch_stopped", _get(L, s, "agent_launch", m["agent"]), True)',
         'yield ("launch_stopped", _get(L, s, "agent_launch", m["agent"]), False)', 3),
        ("an order to stop stops nothing", _A, 'yield ("launch_stopped", m["launch"], True)',
         'yield ("launch_stopped", m["launch"], False)', 3),
        # the interpreter
        ("a refusal changes something", _A, "        if reason is not None:\n            raise Refused(reason)",
         '        if reason is not None:\n            self._state["clock"][""] = message["now"]\n            '
         "raise Refused(reason)"),
        ("only the first condition counts", _A, "            if holds is not True:\n                return reason\n",
         "            return None if holds is True else reason\n"),
        ("done without a look", _A, "        reason = self.check(rule, message)\n", "        reason = None\n"),
        # the logic, read plainly
        ("one of the terms is not enough", _L, "return any(terms)", "return all(terms)"),
        ("at most is less", _L, "return left <= right", "return left < right + 2"),
        ("less is at most", _L, "return left < right", "return left <= right"),
        ("a sum forgets its sign", _L, "return left + right", "return left + abs(right)"),
        ("the other branch", _L, "return then if term else otherwise", "return then"),
        ("everything is covered", _L, "covers_rendered(where, args) is None", "True", 8),
        # the order of constraints
        ("a prefix without its separator", _C,
         "    if not rest.startswith(prefix.separator):\n        return False\n", "", 8),
        ("a way out of a prefix", _C, 'part.split(";")[0].strip() not in (".", "..")', 'part not in (".",)', 8),
        ("an encoded way out", _C,
         'if not segment or "\\\\" in segment or ("%" in segment and _ENCODED.search(segment)):',
         'if not segment or "\\\\" in segment:', 8),
        ("true is one", _C, "if value == scalar and type(value) is type(scalar):", "if value == scalar:", 8),
        ("a number too many", _C, "inside = type(value) is int and minimum <= value <= maximum",
         "inside = type(value) is int and minimum <= value <= maximum + 1", 8),
        ("an argument that nobody named", _C, 'return None if named == len(args) else "argument-not-named"',
         "return None", 8),
        ("a missing argument", _C, '            return "argument-missing"', "            continue", 8),
        ("a wider range is narrower", _C, "return b.minimum <= minimum and maximum <= b.maximum",
         "return b.minimum <= minimum or maximum <= b.maximum", 8),
        ("one alternative in common is enough", _C, "return all(_refusal(b, value, False) is None for value in values)",
         "return any(_refusal(b, value, False) is None for value in values)", 8),
        ("a prefix of another separator is narrower", _C,
         "return isinstance(b, Prefix) and separator == b.separator and _under(b, value)",
         "return isinstance(b, Prefix) and _under(b, value)", 8),
        ("anything is narrower than something", _C, "        case Anything():\n            return False\n",
         "        case Anything():\n            return True\n", 8),
    )
)  # fmt: skip
