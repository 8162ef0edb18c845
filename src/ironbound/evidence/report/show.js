// Shows what `Check` found, and draws the entries. Everything from the log becomes text, never markup.
"use strict";

(() => {
  const at = (id) => document.getElementById(id);
  const said = JSON.parse(at("said").textContent);
  const when = (ms) => new Date(ms).toISOString().replace("T", " ").slice(0, 19);

  function make(name, attributes = {}, ...inside) {
    const svg = ["svg", "rect", "circle", "line", "text", "title", "g"].includes(name);
    const made = svg ? document.createElementNS("http://www.w3.org/2000/svg", name) : document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...inside.map((one) => (one instanceof Node ? one : String(one))));
    return made;
  }
  function table(name, head, rows) {
    if (!rows.length) return make("p", {}, "None in this log.");
    const line = (cells, cell) => make("tr", {}, ...cells.map((one) => make(cell, cell === "td" ? { class: /\S{25}/.test(one) ? "text" : "word" } : { scope: "col" }, one)));
    const body = make("tbody", {}, ...rows.map((cells) => line(cells, "td")));
    return wide(name, make("table", {}, make("thead", {}, line(head, "th")), body));
  }
  const wide = (name, inside) => make("div", { class: "wide", tabindex: "0", role: "region", "aria-label": name }, inside);
  const put = (id, ...inside) => at(id).replaceChildren(...inside);
  const short = (digest) => (digest ?? "-").slice(0, 12);
  const limit = ([name, how]) => {
    const [[kind, value]] = Object.entries(how);
    if (kind === "any") return `${name} any`;
    if (kind === "range") return `${name} ${value.min} to ${value.max}`;
    if (kind === "prefix") return `${name} below ${value.value}`;
    return `${name} ${[value].flat().map((one) => (typeof one === "string" && /^[!-~]+$/.test(one) && Number.isNaN(Number(one)) ? one : JSON.stringify(one))).join(" or ")}`;
  };

  // What the page found about itself

  function tell(result) {
    const rows = Check.compare(result, said.report.claims);
    const differ = rows.filter((one) => !one.agrees);
    const missing = said.report.log.size !== result.checkpoint.size || said.report.pin !== result.pin;
    const agrees = !differ.length && !missing;
    at("self").classList.add(agrees ? "holds" : "refuted");
    document.documentElement.dataset.self = agrees ? "agrees" : "disagrees";
    const { entries, signatures, consents, windows } = result.counts;
    put("self-says", make("strong", {}, agrees ? (rows.some((one) => one.lacks.length) ? "It agrees with the verifier as far as it can check." : "It agrees with the verifier.") : "It disagrees with the verifier."), ` Recomputed here: the root over ${result.checkpoint.size} entries, cosigned by ${result.checkpoint.cosigned.join(", ")}; ${entries} entries in full, ${signatures} signatures, ${consents} requests with their humans, ${windows} windows of canaries.`);
    const about = { C1: "humans' signatures on every request", D2: "what came before what", D3: "who said each entry", F1: "launches and observations", B2: "windows of canaries that have one refusal at least", E1: "releases, their statements and what was measured", E2: "the signed surface and what gateways named", E3: "the chain of each launch" };
    const list = rows.map((one) => [one.claim, about[one.claim], one.ours.join(", ") || "nothing against it", one.theirs.join(", ") || "nothing against it", one.lacks.length ? `not checked here: ${one.lacks.join(", ")} as hashes only` : one.agrees ? "agrees" : `disagrees: ${one.differ.join(", ")}`]);
    const notes = make("ul", {}, make("li", {}, "Taken from the verifier, not recomputed here: the kernel's decisions, what a key that was flagged later takes with it, reviews of sealed keys' grants, the code's surfaces, postures, the canaries' verdicts from their transcripts, quotes, the operator channel's refusals, and whether each service was measured often enough."));
    if (result.unseen) notes.append(make("li", {}, `${result.unseen} entries stand in this page as hashes only, to keep it small: their place is checked, not their signatures.`));
    if (result.counts.tokens) notes.append(make("li", {}, `${result.counts.tokens} tokens of identity providers were not judged here; the keys beside them were.`));
    if (missing) notes.append(make("li", {}, "The verifier's words in this page are about another log than the entries in it."));
    const rest = make("details", {}, make("summary", {}, "What was compared"), table("What was compared", ["Claim", "Checked here", "This page found", "The verifier found", "Verdict"], list), notes);
    if (!agrees) rest.open = true;
    put("self-rows", rest);
  }

  function broken(error) {
    at("self").classList.add("refuted");
    document.documentElement.dataset.self = "broken";
    const code = error instanceof Check.Broken ? error.code : "check-failed";
    put("self-says", make("strong", {}, "Nothing in this page counts."), ` ${code}: ${error.message}.`);
  }

  // What the entries say

  function draw({ entries, checkpoint, unseen }) {
    const valid = entries.filter((one) => !one.void);
    const of = (kind) => valid.filter((one) => one.kind === kind);
    const count = (kind) => (unseen ? said.report.entries[kind] ?? 0 : of(kind).length); // what is only a hash here has no kind
    const started = new Map(of("started").map((one) => [one.says.launch, one]));
    const exited = new Map(of("exited").map((one) => [one.says.launch, one]));
    const admitted = of("admitted").filter((one) => one.asked);
    const asked = (kind) => admitted.filter((one) => one.asked.kind === kind);
    const results = of("canary-result");
    const revoked = new Map(asked("revocation").map((one) => [one.asked.says.body.grant, one]));
    const agents = asked("launch-request").map((one) => ({ one, start: started.get(one.index), end: exited.get(one.index) }));

    put("grants-here", table("Grants", ["Entry", "Agent", "Tool", "What", "Calls", "Until (UTC)", "Signed by", "Revoked"], asked("grant").map((one) => {
      const { agent, id, body } = one.asked.says;
      const end = revoked.get(id);
      return [one.index, agent, body.tool, `${body.action}: ${Object.entries(body.where).map(limit).join(", ") || "no arguments"}`, body.calls, when(body.expires_ms), one.humans.join(", "), end ? `entry ${end.index}, by ${end.humans.join(", ")}` : "-"];
    })));
    const approved = (kind, digest, before) => {
      const one = asked(kind).findLast((asking) => asking.index < before && asking.asked.says[kind === "module-approval" ? "module_sha256" : "config_sha256"] === digest);
      return one ? `${short(digest)}, entry ${one.index} by ${one.humans.join(", ")}` : short(digest);
    };
    put("launches-here", table("Launches", ["Entry", "Agent", "Asked by", "Code, approved in", "Configuration, approved in", "Runtime", "Started", "Seen by the monitor", "Chain", "Ended"], agents.map(({ one, start, end }) => {
      const what = one.asked.says;
      return [one.index, what.agent, one.humans.join(", "), approved("module-approval", what.module_sha256, one.index), approved("profile-approval", what.config_sha256, one.index), start?.says.runtime ?? "-", start ? `entry ${start.index}` : "-", start?.look ? "held, no difference" : "-", start?.chain ? start.chain.join(", ") || "whole" : "-", end ? `entry ${end.index}: ${end.says.reason}` : "runs"];
    })));
    const runtimes = new Map();
    for (const one of results) {
      const row = runtimes.get(one.says.runtime) ?? { REFUSED: 0, ESCAPED: 0, INCONCLUSIVE: 0, names: new Set() };
      row[one.says.verdict] += 1;
      row.names.add(one.says.probe);
      runtimes.set(one.says.runtime, row);
    }
    const tries = new Map(asked("module-approval").filter((one) => one.asked.says.body.probe).map((one) => [one.asked.says.module_sha256, one.asked.says.body.probe.about]));
    const tried = new Map(of("canary-challenge").map((one) => [one.index, tries.get(one.says.module_sha256)]));
    const transcripts = table("Results of canaries", ["Entry", "Canary", "What it tries", "Runtime", "Verdict", "In the enforcer's words", "Asked, answered in"], results.map((one) => [one.index, one.says.probe, tried.get(one.says.challenge) ?? "-", one.says.runtime, one.says.verdict, one.says.refusal, `entries ${one.says.challenge}, ${one.says.evidence}`]));
    put("canaries-here", table("Canaries by runtime", ["Runtime", "Canaries", "Refused", "Escaped", "Inconclusive"], [...runtimes].map(([name, row]) => [name, row.names.size, row.REFUSED, row.ESCAPED, row.INCONCLUSIVE])), make("details", {}, make("summary", {}, `All ${results.length} results`), transcripts));
    put("reconciled-here", ...(unseen ? [make("p", {}, "Entries that stand here as hashes only are counted by the verifier.")] : []), table("Counts", ["One voice", "Count", "Another voice", "Its count", "They"], [
      ["Grants in the log", asked("grant").length, "Requests for grants that humans signed", entries.filter((one) => one.asked?.kind === "grant").length],
      ["Launches that the node started", count("started"), "Sandboxes that the monitor saw held", of("started").filter((one) => one.look).length],
      ["Actions that the gateway meant", count("action-intent"), "Outcomes that it reported", count("action-outcome")],
      ["Challenges of the monitor", count("canary-challenge"), "Results of the node", count("canary-result")],
      ["Drifts that the monitor saw", count("drift"), "Orders to stop", count("stop-order")],
    ].map((row) => [...row, row[1] === row[3] ? "agree" : "differ"])));
    timeline(agents, asked("grant"), revoked, results, of("drift"), of("canary-challenge"), checkpoint.asOf, said.report.log.first_ms);
  }

  function timeline(agents, grants, revoked, results, drifts, challenges, asOf, first) {
    const [left, right, row] = [130, 990, 22];
    const x = (ms) => left + ((Math.min(Math.max(ms, first), asOf) - first) / Math.max(1, asOf - first)) * (right - left);
    const marks = [];
    let y = 24;
    const lane = (name, note, ...shapes) => {
      marks.push(make("text", { x: 0, y: y + 13 }, name.slice(0, 22), make("title", {}, note)), ...shapes);
      y += row;
    };
    const bar = (from, to, kind, note) => make("rect", { x: x(from), y: y + 4, width: Math.max(3, x(to) - x(from)), height: 12, rx: 3, class: kind }, make("title", {}, note));
    for (const { one, start, end } of agents.slice(0, 40)) {
      const agent = one.asked.says.agent;
      if (start) lane(agent, agent, bar(start.says.at_ms, end?.says.at_ms ?? asOf, "run", `${agent}: entry ${start.index}${end ? ` to ${end.index}, ${end.says.reason}` : ", runs"}`));
    }
    for (const one of grants.slice(0, 40)) {
      const { agent, id, body } = one.asked.says;
      const end = revoked.get(id);
      const until = Math.min(end ? end.says.at_ms : asOf, body.expires_ms);
      lane(body.tool, `${body.tool} for ${agent}`, bar(one.says.at_ms, until, "grant", `${body.tool} for ${agent}, by ${one.humans.join(" and ")}${end ? `; revoked in entry ${end.index}` : ""}`));
    }
    const times = new Map(challenges.map((one) => [one.index, one.says.at_ms]));
    const dots = results.slice(0, 4000).map((one) => make("circle", { cx: x(times.get(one.says.challenge) ?? one.says.at_ms), cy: y + 10, r: 3, class: one.says.verdict === "REFUSED" ? "refused" : "bad" }, make("title", {}, `${one.says.probe}: ${one.says.verdict}`)));
    lane("canaries", "hostile agents", ...dots);
    lane("drift", "drift", ...drifts.map((one) => make("circle", { cx: x(one.says.at_ms), cy: y + 10, r: 5, class: "bad" }, make("title", {}, `entry ${one.index}: ${one.says.kind}`))));
    const ends = [[left, first, "start"], [right, asOf, "end"]].map(([place, ms, anchor]) => make("text", { x: place, y: 12, "text-anchor": anchor, class: "soft" }, `${when(ms)} UTC`));
    const axis = make("line", { x1: left, x2: right, y1: 18, y2: 18, class: "axis" });
    const title = "Timeline of agents, grants, canaries and drift; the tables below say the same in words";
    const legend = make("p", { class: "legend" }, ...[["run", "an agent runs"], ["grant", "a grant lives"], ["refused", "a canary was refused"], ["bad", "drift, or a canary that was not refused"]].map(([kind, words]) => make("span", { class: kind }, words)));
    put("time-here", legend, wide("Timeline", make("svg", { viewBox: `0 0 1000 ${y + 6}`, role: "img", "aria-label": title }, axis, ...ends, ...marks)));
  }

  async function go(pin) {
    const bar = at("self-progress");
    bar.hidden = false;
    at("self").classList.remove("holds", "refuted");
    put("self-says", "Checking …");
    put("self-rows");
    try {
      const result = await Check.run(at("log").textContent, pin, (what, done, all) => {
        bar.value = done / all;
        put("self-says", `Checking: ${what}, ${done} of ${all} …`);
      });
      draw(result);
      tell(result);
    } catch (error) {
      broken(error);
    }
    bar.hidden = true;
  }

  addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((one) => (one.open = true)));
  at("pin").value = said.pin ?? "";
  at("pin-form").addEventListener("submit", (event) => {
    event.preventDefault();
    go(at("pin").value);
  });
  go(said.pin);
})();
