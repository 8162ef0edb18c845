// Checks the log in this page once more, in the reader's browser: a second implementation, written from docs/formats.md.
//
// It shares no code with the Python verifier, and uses nothing but WebCrypto. It recomputes: the pin, the checkpoint's
// signatures and the witnesses' quorum (C2SP signed-note, tlog-policy), the Merkle root (RFC 6962), each entry's voice
// (DSSE), the humans' signatures on each request and their number, what came before what, which windows the canaries
// cover, what the release key signed, and the chain from there to each launch. It does not recompute what the kernel
// decided, the code's surfaces, postures or TPM quotes: of these it says so.
//
// Rule 1: bytes first. Nothing is parsed before its hash or signature was checked, but to find out whose it should be.
// Rule 2: what this page can't judge it names; it never counts as checked.
"use strict";

const Check = (() => {
  const PAYLOAD_TYPE = "application/vnd.in-toto+json";
  const TYPE_PREFIX = "https://ironbound.dev/";
  const IN_TOTO = "https://in-toto.io/Statement/v1";
  const ANSWER_MS = 120000;
  const BUSY_MS = 40;
  const utf8 = new TextEncoder();
  const text = (bytes) => new TextDecoder("utf-8", { fatal: true }).decode(bytes);

  // What each service may say, and how many humans an act takes (null: one).
  const VOICES = {
    controller: [
      "service-started", "proposed", "seconded", "declined", "admitted", "refused", "issuer-keys", "snapshot",
    ],
    node: ["service-started", "started", "launch-refused", "exited", "canary-result"],
    gateway: ["service-started", "action-intent", "action-outcome", "action-denied", "delegated", "dropped"],
    monitor: [
      "service-started", "observed", "drift", "stop-order", "end-witnessed", "heartbeat", "canary-challenge",
      "channel-probed", "issuer-keys-seen", "kernel-proof", "host-measured", "snapshot",
    ],
  };
  const ACTS = {
    "module-approval": "module", "profile-approval": "profile", "release-approval": "release",
    "launch-request": "launch", grant: "grant",
    "call-approval": "grant", quota: "reconfigure", revocation: null, stop: null, "trust-root-change": "reconfigure",
    "key-compromised": "reconfigure", review: "grant",
  };
  const FAMILIES = {
    wasmtime: "wasm", bubblewrap: "native", runc: "native", crun: "native", gvisor: "native",
    "qemu-microvm": "microvm", firecracker: "microvm",
  };

  class Broken extends Error {
    constructor(code, message) {
      super(message);
      this.code = code;
    }
  }
  const fail = (code, message) => { throw new Broken(code, message); };

  // Bytes

  const hex = (bytes) => Array.from(bytes, (one) => one.toString(16).padStart(2, "0")).join("");
  function base64(value) {
    const plain = atob(value);
    if (btoa(plain) !== value) fail("malformed", "base64 in another spelling");
    return Uint8Array.from(plain, (one) => one.charCodeAt(0));
  }
  function toBase64(bytes) {
    let plain = "";
    for (let at = 0; at < bytes.length; at += 8192) plain += String.fromCharCode(...bytes.subarray(at, at + 8192));
    return btoa(plain);
  }
  const base64url = (bytes) => toBase64(bytes).replaceAll("+", "-").replaceAll("/", "_").replace(/=+$/, "");
  function join(...parts) {
    const all = parts.map((one) => (typeof one === "string" ? utf8.encode(one) : one));
    const whole = new Uint8Array(all.reduce((sum, one) => sum + one.length, 0));
    let at = 0;
    for (const one of all) {
      whole.set(one, at);
      at += one.length;
    }
    return whole;
  }
  const same = (one, other) => one.length === other.length && one.every((byte, at) => byte === other[at]);
  const digest = async (bytes, name = "SHA-256") => new Uint8Array(await crypto.subtle.digest(name, bytes));
  function uint(size, number) {
    const bytes = new Uint8Array(size);
    for (let at = size - 1; at >= 0; at--, number = Math.floor(number / 256)) bytes[at] = number % 256;
    return bytes;
  }

  // RFC 8785 for what our statements hold: text, whole numbers, true, false, null, lists and objects.
  function canonical(value) {
    if (Array.isArray(value)) return `[${value.map(canonical).join(",")}]`;
    if (value !== null && typeof value === "object") {
      const fields = Object.keys(value).sort().map((name) => `${JSON.stringify(name)}:${canonical(value[name])}`);
      return `{${fields.join(",")}}`;
    }
    return JSON.stringify(value);
  }
  function parseCanonical(source) {
    let value;
    try {
      value = JSON.parse(source);
    } catch {
      fail("malformed", "not JSON");
    }
    if (canonical(value) !== source) fail("malformed", "not its own canonical form");
    return value;
  }

  // Keys and signatures

  const imported = new Map();
  async function ed25519(raw, signature, message) {
    const name = hex(raw);
    if (!imported.has(name)) {
      imported.set(name, crypto.subtle.importKey("raw", raw, { name: "Ed25519" }, false, ["verify"]));
    }
    return crypto.subtle.verify("Ed25519", await imported.get(name), signature, message);
  }
  const ED25519_SPKI = Uint8Array.of(48, 42, 48, 5, 6, 3, 43, 101, 112, 3, 33, 0);
  const keyid = async (raw) => hex(await digest(join(ED25519_SPKI, raw)));

  function reader(bytes) {
    let at = 0;
    const take = (size) => {
      if (at + size > bytes.length) fail("signature-malformed", "ends inside a field");
      at += size;
      return bytes.subarray(at - size, at);
    };
    const number = () => take(4).reduce((sum, byte) => sum * 256 + byte, 0);
    return { take, number, string: () => take(number()), end: () => at === bytes.length || fail("signature-malformed", "too long") };
  }
  const sshString = (bytes) => join(uint(4, bytes.length), bytes);

  async function sshsig(key, signature, message, deployment) {
    const outer = reader(signature);
    if (text(outer.take(6)) !== "SSHSIG" || outer.number() !== 1) return false;
    const [blob, namespace, reserved, algorithm] = [outer.string(), outer.string(), outer.string(), text(outer.string())];
    const inner = reader(outer.string());
    outer.end();
    const kind = text(inner.string());
    const raw = inner.string();
    const hardware = kind === "sk-ssh-ed25519@openssh.com";
    const [flags, counter] = hardware ? [inner.take(1), inner.take(4)] : [null, null];
    inner.end();
    const named = { sha256: "SHA-256", sha512: "SHA-512" }[algorithm];
    if (!same(blob, base64(key.public)) || reserved.length || !named) return false;
    if (text(namespace) !== `ironbound-operator@${deployment}`) return false;
    const enrolled = reader(blob);
    if (text(enrolled.string()) !== kind) return false;
    const bare = enrolled.string();
    const hashed = sshString(await digest(message, named));
    const covered = join("SSHSIG", sshString(namespace), uint(4, 0), sshString(utf8.encode(algorithm)), hashed);
    if (!hardware) return kind === "ssh-ed25519" && ed25519(bare, raw, covered);
    const application = await digest(enrolled.string());
    if (!(flags[0] & 1) || (key.user_verification && !(flags[0] & 4))) return false;
    return ed25519(bare, raw, join(application, flags, counter, await digest(covered)));
  }

  function rawEcdsa(der) {
    const outer = [...der];
    if (outer[0] !== 48 || outer[1] !== der.length - 2 || der.length > 72) fail("signature-malformed", "not DER");
    const numbers = [];
    for (let at = 2; at < der.length;) {
      const size = der[at + 1];
      const part = der.subarray(at + 2, at + 2 + size);
      if (der[at] !== 2 || !size || part.length !== size || part[0] & 128 || (size > 1 && !part[0] && !(part[1] & 128))) {
        fail("signature-malformed", "not DER");
      }
      const bare = part[0] === 0 ? part.subarray(1) : part;
      if (bare.length > 32) fail("signature-malformed", "not DER");
      numbers.push(join(new Uint8Array(32 - bare.length), bare));
      at += 2 + size;
    }
    return numbers.length === 2 ? join(...numbers) : fail("signature-malformed", "not DER");
  }

  async function webauthn(key, signature, message) {
    const parts = parseCanonical(text(signature));
    const data = base64(parts.authenticator_data);
    const client = base64(parts.client_data);
    const said = JSON.parse(text(client));
    if (data.length !== 37 || (data[32] & 5) !== 5 || !!(data[32] & 8) !== key.synced) return false;
    if (said.type !== "webauthn.get" || said.origin !== key.origin || (said.crossOrigin ?? false) !== false) return false;
    if (said.challenge !== base64url(await digest(message)) || "topOrigin" in said) return false;
    if (!same(data.subarray(0, 32), await digest(utf8.encode(key.rp_id)))) return false;
    const covered = join(data, await digest(client));
    const spki = base64(key.public);
    if (spki.length === 44) return ed25519(spki.subarray(12), base64(parts.signature), covered);
    const curve = { name: "ECDSA", namedCurve: "P-256" };
    const loaded = await crypto.subtle.importKey("spki", spki, curve, false, ["verify"]);
    return crypto.subtle.verify({ name: "ECDSA", hash: "SHA-256" }, loaded, rawEcdsa(base64(parts.signature)), covered);
  }

  const SCHEMES = {
    ed25519: (key, signature, message) => ed25519(base64(key.public), signature, message),
    sshsig,
    webauthn,
  };

  // What a human's key is called: SHA-256 of its SPKI, whatever the scheme; of an identity, of whose it is.
  async function nameOf(key) {
    if (key.scheme === "oidc") return hex(await digest(utf8.encode(canonical({ issuer: key.issuer, subject: key.subject }))));
    if (key.scheme === "ed25519") return keyid(base64(key.public));
    if (key.scheme === "webauthn") return hex(await digest(base64(key.public)));
    const blob = reader(base64(key.public));
    blob.string();
    return keyid(blob.string());
  }

  const pae = (body) => join(`DSSEv1 ${PAYLOAD_TYPE.length} ${PAYLOAD_TYPE} ${body.length} `, body);

  function parseStatement(payload) {
    const value = parseCanonical(text(payload));
    const type = value.predicateType;
    if (value._type !== IN_TOTO || typeof type !== "string" || !type.startsWith(TYPE_PREFIX)) {
      fail("entry-malformed", "not a statement of ours");
    }
    return { kind: type.slice(TYPE_PREFIX.length).replace(/\/v1$/, ""), says: value.predicate, subject: value.subject };
  }

  // Notes, checkpoint, policy

  function vkey(line) {
    const [name, id, ...rest] = line.split("+");
    const material = base64(rest.join("+"));
    return { name, id, kind: material[0], raw: material.subarray(1), text: line };
  }
  async function keyNumber(key) {
    return hex((await digest(join(key.name, "\n", Uint8Array.of(key.kind), key.raw))).subarray(0, 4));
  }

  function parsePolicy(source) {
    const policy = { witnesses: {}, groups: {} };
    for (const line of source.split("\n")) {
      const [word, ...rest] = line.split(/[ \t]+/).filter((one) => one);
      if (!word || word.startsWith("#")) continue;
      if (word === "log") policy.log = vkey(rest[0]);
      else if (word === "witness") policy.witnesses[rest[0]] = vkey(rest[1]);
      else if (word === "group") policy.groups[rest[0]] = { rule: rest[1], members: rest.slice(2) };
      else if (word === "quorum") policy.quorum = rest[0];
      else fail("policy-malformed", `unknown line ${word}`);
    }
    return policy;
  }
  function isQuorum(policy, name, cosigned) {
    if (name === "none") return true;
    if (name in policy.witnesses) return cosigned.has(name);
    const group = policy.groups[name];
    const needed = { any: 1, all: group.members.length }[group.rule] ?? Number(group.rule);
    return group.members.filter((one) => isQuorum(policy, one, cosigned)).length >= needed;
  }

  async function checkCheckpoint(source, policy) {
    const cut = source.lastIndexOf("\n\n");
    const note = source.slice(0, cut + 1);
    const known = [policy.log, ...Object.values(policy.witnesses)];
    for (const key of known) if ((await keyNumber(key)) !== key.id) fail("policy-malformed", `${key.name}: wrong key id`);
    const witnesses = new Map(Object.entries(policy.witnesses).map(([name, key]) => [key, name]));
    const cosigned = new Set();
    let signed = false;
    let latest = 0;
    for (const line of source.slice(cut + 2).split("\n").filter((one) => one)) {
      const [, name, encoded] = /^\u2014 (\S+) (\S+)$/.exec(line) ?? fail("checkpoint-malformed", "a signature line");
      const blob = base64(encoded);
      const id = hex(blob.subarray(0, 4));
      const key = known.find((one) => one.name === name && one.id === id);
      if (!key) fail("checkpoint-signature", `a signature by ${name}, who is not in the policy`);
      if (key === policy.log) {
        signed = await ed25519(key.raw, blob.subarray(4), utf8.encode(note));
        if (!signed) fail("checkpoint-signature", "the log's signature is wrong");
      } else {
        const time = blob.subarray(4, 12).reduce((sum, byte) => sum * 256 + byte, 0);
        const message = utf8.encode(`cosignature/v1\ntime ${time}\n${note}`);
        if (!(await ed25519(key.raw, blob.subarray(12), message))) fail("checkpoint-signature", `${name}'s is wrong`);
        cosigned.add(witnesses.get(key));
        latest = Math.max(latest, time);
      }
    }
    if (!signed) fail("checkpoint-signature", "the log did not sign");
    if (!isQuorum(policy, policy.quorum, cosigned)) fail("checkpoint-unwitnessed", "no quorum of witnesses cosigned");
    const [origin, size, root, ...more] = note.split("\n");
    if (more.join("") !== "" || origin !== policy.log.name) fail("checkpoint-malformed", "not a checkpoint of this log");
    return { origin, size: Number(size), root: base64(root), cosigned: [...cosigned], asOf: latest * 1000 + 999 };
  }

  // RFC 6962: level by level, an odd node at the end moves up alone.
  async function merkleRoot(leaves, breathe) {
    let level = leaves;
    const prefix = Uint8Array.of(1);
    while (level.length > 1) {
      const pairs = [];
      for (let at = 0; at + 1 < level.length; at += 2) {
        pairs.push(digest(join(prefix, level[at], level[at + 1])));
        await breathe("hashing", level.length - at, level.length);
      }
      const above = await Promise.all(pairs);
      if (level.length % 2) above.push(level[level.length - 1]);
      level = above;
    }
    return level[0];
  }

  // The trust root

  // The people of one version: whose each key is, the sealed ones apart, and what each human is on the roster for.
  async function readRoster(body) {
    const roster = { keys: new Map(), sealed: new Map(), acts: new Map(), quorum: { ...body.quorum } };
    const enrol = async (people, keys) => {
      for (const { name, keys: enrolled } of people) {
        for (const key of enrolled) {
          if (key.scheme !== "oidc" && !(key.scheme in SCHEMES)) fail("scheme-unknown", `the scheme ${key.scheme}`);
          const id = await nameOf(key);
          if (roster.keys.has(id) || roster.sealed.has(id)) fail("trust-root-invalid", "one key listed twice");
          keys.set(id, { human: name, key });
        }
      }
    };
    await enrol(body.operators, roster.keys);
    for (const { name, acts } of body.operators) roster.acts.set(name, new Set(acts));
    if (body.break_glass) {
      await enrol(body.break_glass.holders, roster.sealed);
      roster.quorum["break-glass"] = body.break_glass.quorum;
    }
    return roster;
  }

  async function readTrust(envelope) {
    const { kind, says } = parseStatement(envelope.body);
    if (kind !== "trust-root" || says.version !== 1) fail("trust-root-invalid", "entry 0 is no first trust root");
    const trust = {
      says, body: says, deployment: says.deployment, roster: await readRoster(says), services: new Map(),
      compromised: new Set(), tokens: 0, digest: hex(await digest(envelope.body)),
    };
    for (const [role, key] of Object.entries(says.services)) {
      trust.services.set(await nameOf(key), { role, raw: base64(key.public) });
    }
    const signers = new Set();
    for (const one of envelope.signatures) {
      const signer = trust.roster.keys.get(one.keyid);
      if (!signer) fail("trust-root-invalid", "signed by a stranger");
      if (signer.key.scheme === "oidc") continue; // an identity alone counts for nobody
      if (!(await SCHEMES[signer.key.scheme](signer.key, one.sig, pae(envelope.body), trust.deployment))) {
        fail("trust-root-invalid", `${signer.human}'s signature is wrong`);
      }
      if (trust.roster.acts.get(signer.human).has("reconfigure")) signers.add(signer.human);
    }
    if (signers.size < says.quorum.reconfigure) fail("trust-root-invalid", "signed by too few humans");
    trust.signers = signers.size;
    return trust;
  }

  function envelopeOf(value) {
    if (value.payloadType !== PAYLOAD_TYPE || !Array.isArray(value.signatures) || !value.signatures.length) {
      fail("entry-malformed", "not an envelope");
    }
    const signatures = value.signatures.map((one) => ({ keyid: one.keyid, sig: base64(one.sig) }));
    return { body: base64(value.payload), signatures };
  }

  // Who signed, by one of these keys, maybe with an identity of theirs beside it, whose token this page can't judge.
  async function signer(trust, envelope, known) {
    const signers = envelope.signatures.map((one) => ({ ...known.get(one.keyid), id: one.keyid, sig: one.sig }));
    const devices = signers.filter((one) => one.key && one.key.scheme !== "oidc");
    if (devices.length !== 1 || signers.length > 2 || signers.some((one) => one.human !== devices[0].human)) return null;
    if (signers.some((one) => trust.compromised.has(one.id))) return null;
    const [{ human, id, key, sig }] = devices;
    const valid = await SCHEMES[key.scheme](key, sig, pae(envelope.body), trust.deployment).catch(() => false);
    trust.tokens += signers.length - 1;
    return valid ? { human, id, ids: signers.map((one) => one.id) } : null;
  }

  // The humans of one version behind these keys, each once; null if one signed twice or is not on its roster for it.
  function counted(roster, ids) {
    const humans = ids.filter((id) => roster.keys.has(id)).map((id) => roster.keys.get(id).human);
    if (new Set(humans).size !== humans.length || !humans.every((one) => roster.acts.get(one).has("reconfigure"))) return null;
    return humans;
  }

  // Who consents to an admitted request: null, or the request with its humans, the initiator first.
  async function consent(trust, says) {
    const request = envelopeOf(says.request);
    const asked = parseStatement(request.body);
    if (!(asked.kind in ACTS) || asked.says.deployment !== trust.deployment) return null;
    const { roster } = trust;
    let [act, known] = [ACTS[asked.kind], roster.keys];
    let next = null;
    if (asked.kind === "trust-root-change") {
      const { root, previous_sha256: previous } = asked.says.body;
      if (root.version !== trust.body.version + 1 || root.deployment !== trust.deployment) return null;
      if (previous !== hex(await digest(utf8.encode(canonical(trust.body))))) return null;
      next = await readRoster(root);
      known = new Map([...next.keys, ...roster.keys]);
    } else if (request.signatures.some((one) => roster.sealed.has(one.keyid))) {
      if (asked.kind !== "grant") return null;
      [act, known] = ["break-glass", roster.sealed];
    }
    const signers = [await signer(trust, request, known)];
    const requested = hex(await digest(request.body));
    for (const one of says.approvals) {
      const envelope = envelopeOf(one);
      const approval = parseStatement(envelope.body);
      if (approval.kind !== "approval" || approval.says.request_sha256 !== requested) return null;
      if (approval.says.deployment !== trust.deployment || approval.says.shown_sha256 !== asked.says.shown_sha256) return null;
      signers.push(await signer(trust, envelope, known));
    }
    if (signers.includes(null)) return null;
    const humans = [...new Set(signers.map((one) => one.human))];
    if (next !== null) {
      const ids = signers.map((one) => one.id);
      const enough = [roster, next].every((one) => (counted(one, ids)?.length ?? 0) >= one.quorum.reconfigure);
      return enough ? { ...asked, humans, signers, next } : null;
    }
    if (humans.length !== signers.length || humans.length < (act === null ? 1 : roster.quorum[act])) return null;
    if (act in trust.body.quorum && !humans.every((one) => roster.acts.get(one).has(act))) return null;
    return { ...asked, humans, signers, needed: act === null ? 1 : roster.quorum[act] };
  }

  // The monitor's look at the held sandbox, which a start carries: over every word of the node's account, no difference.
  async function held(trust, says) {
    const envelope = envelopeOf(says.held);
    const [one] = envelope.signatures;
    const voice = trust.services.get(one.keyid);
    if (envelope.signatures.length !== 1 || voice?.role !== "monitor") return null;
    if (!(await ed25519(voice.raw, one.sig, pae(envelope.body)))) return null;
    const { kind, says: seen } = parseStatement(envelope.body);
    const account = { ...says };
    for (const name of ["id", "deployment", "at_ms", "held", "quote"]) delete account[name];
    const whole = hex(await digest(utf8.encode(canonical(account))));
    if (kind !== "held" || seen.account_sha256 !== whole || seen.differences.length) return null;
    return ["launch", "agent", "pid", "deployment"].every((name) => seen[name] === says[name]) ? seen : null;
  }

  // The log in this page

  async function inflate(encoded) {
    const plain = atob(encoded);
    const packed = new Uint8Array(plain.length);
    for (let at = 0; at < plain.length; at++) packed[at] = plain.charCodeAt(at);
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  // An entry's exact bytes: its payload as text with its signatures, or base64; "" if the page holds its hash alone.
  function entryBytes(packed) {
    if (packed.raw !== undefined) return base64(packed.raw);
    const signatures = packed.s.map(([id, sig]) => `{"keyid":"${id}","sig":"${sig}"}`).join(",");
    const payload = toBase64(utf8.encode(packed.p));
    return utf8.encode(`{"payload":"${payload}","payloadType":"${PAYLOAD_TYPE}","signatures":[${signatures}]}`);
  }

  // Tells how far it is and lets the browser answer its reader, whenever that waited for BUSY_MS.
  function breather(progress) {
    let since = performance.now();
    return async (what, done, of) => {
      if (performance.now() - since < BUSY_MS) return;
      progress(what, done, of);
      await new Promise((go) => { setTimeout(go, 0); });
      since = performance.now();
    };
  }

  // Everything. `progress` is told (what, done, of). Broken if nothing in the page counts.
  async function run(encoded, pin, progress = () => {}) {
    const log = JSON.parse(text(await inflate(encoded)));
    const policy = parsePolicy(log.policy);
    const checkpoint = await checkCheckpoint(log.checkpoint, policy);
    if (log.entries.length !== checkpoint.size) fail("root-differs", "the page holds another number of entries");
    const breathe = breather(progress);
    const leaves = [];
    const bytes = [];
    for (let at = 0; at < log.entries.length; at++) {
      const packed = log.entries[at];
      bytes.push(packed.h === undefined ? entryBytes(packed) : null);
      leaves.push(packed.h === undefined ? digest(join(Uint8Array.of(0), bytes[at])) : base64(packed.h));
      await breathe("reading", at + 1, checkpoint.size);
    }
    const root = await merkleRoot(await Promise.all(leaves), breathe);
    if (!same(root, checkpoint.root)) fail("root-differs", "the entries do not hash to the checkpoint's root");
    const trust = await readTrust(envelopeOf(parseCanonical(text(bytes[0]))));
    if (trust.says.witness_policy !== log.policy) fail("policy-differs", "the trust root has another witness policy");
    const named = `${trust.deployment}:${trust.digest}:${policy.log.text}`;
    if (pin !== null && pin.trim() !== named) fail("pin-differs", "the pin names another log");
    const state = new Judge(trust, log.void, log.release);
    for (let at = 1; at < bytes.length; at++) {
      if (bytes[at] === null) state.unseen += 1;
      else await state.take(at, bytes[at]);
      await breathe("signatures", at + 1, checkpoint.size);
    }
    checkpoint.asOf = Math.max(checkpoint.asOf, state.clockMs); // a checkpoint that is dated back hides nothing
    await state.end(checkpoint.asOf);
    state.counts.tokens = trust.tokens;
    return { checkpoint, trust, pin: named, found: state.found, counts: state.counts, unseen: state.unseen, dropped: new Set(state.unseen ? log.dropped : []), entries: state.entries, void: log.void };
  }

  // Folds the entries: who said each, who consented, what came before what.
  class Judge {
    constructor(trust, kernelVoid, statements) {
      this.trust = trust;
      this.kernelVoid = kernelVoid; // what the Python verifier says has no effect, by index: taken from there
      this.found = { D1: {}, D2: {}, D3: {}, C1: {}, F1: {}, B2: {}, E1: {}, E2: {}, E3: {} };
      this.counts = { entries: 1, consents: 0, signatures: trust.signers };
      this.unseen = 0;
      this.entries = [{ index: 0, kind: "trust-root", says: trust.says, role: "operators", humans: [] }];
      this.ids = new Set();
      this.launches = new Map(); // index -> {expires, started, ended, nonce, module, config}
      this.starts = new Map(); // index of `started` -> what it says
      this.intents = new Map(); // index -> whether it has an outcome
      this.coverage = new Coverage(trust.says.bounds.canary_interval_ms);
      this.supply = new Supply(trust, statements, this);
      this.monitorMs = 0;
      this.clockMs = 0; // the latest time that anybody said
    }

    finding(claim, code, index) {
      (this.found[claim][code] ??= []).push(index);
    }

    async take(index, data) {
      this.counts.entries += 1;
      let envelope, statement;
      try {
        envelope = envelopeOf(parseCanonical(text(data)));
        const voice = this.trust.services.get(envelope.signatures[0].keyid);
        if (!voice || envelope.signatures.length !== 1) return this.finding("D3", "voice-unknown", index);
        if (!(await ed25519(voice.raw, envelope.signatures[0].sig, pae(envelope.body)))) {
          return this.finding("D3", "signature-invalid", index);
        }
        statement = { ...parseStatement(envelope.body), role: voice.role, index, humans: [] };
      } catch {
        return this.finding("D3", "entry-malformed", index);
      }
      this.counts.signatures += 1;
      const { kind, says, role } = statement;
      if (!VOICES[role].includes(kind)) return this.finding("D3", "voice-not-entitled", index);
      if (says.deployment !== this.trust.deployment) return this.finding("D3", "other-deployment", index);
      if (this.ids.has(`${role} ${says.id}`)) return this.finding("D3", "said-twice", index);
      this.ids.add(`${role} ${says.id}`);
      if (kind === "service-started" && says.role !== role) return this.finding("D3", "voice-not-entitled", index);
      if (Number.isInteger(says.at_ms)) this.clockMs = Math.max(this.clockMs, says.at_ms);
      statement.void = this.kernelVoid[index] ?? null;
      this.entries.push(statement);
      await this.order(statement);
      await this.supply.take(statement, this.launches.get(says.launch));
      if (role === "monitor" && statement.void === null) this.monitorMs = Math.max(this.monitorMs, says.at_ms);
      if (statement.void === null) this.coverage.take(statement, this.launches.get(says.launch), this.monitorMs);
    }

    // What came before what; and for what was admitted, who stands behind it.
    async order(entry) {
      const { kind, says, index } = entry;
      const launch = this.launches.get(says.launch);
      if (kind === "admitted") {
        const stands = await consent(this.trust, says).catch(() => null);
        if (stands === null || entry.void !== null) return this.finding("C1", "request-not-authorised", index);
        this.counts.consents += 1;
        this.counts.signatures += stands.humans.length;
        entry.humans = stands.humans;
        entry.asked = stands;
        if (stands.next) Object.assign(this.trust, { roster: stands.next, body: stands.says.body.root });
        if (stands.kind === "key-compromised") this.trust.compromised.add(stands.says.body.key);
        if (stands.kind === "launch-request") {
          const { expires_ms: expires, agent, module_sha256: module, config_sha256: config } = stands.says;
          this.launches.set(index, { expires, agent, module, config, asked: index });
        }
        this.coverage.approve(stands, says.at_ms);
      } else if (kind === "canary-challenge" && entry.void === null) {
        const { nonce, module_sha256: module, config_sha256: config } = says;
        this.launches.set(index, { expires: says.at_ms + 60000, nonce, agent: `canary:${nonce}`, module, config });
      } else if (kind === "started" && launch) {
        entry.look = await held(this.trust, says).catch(() => null);
        if (entry.look === null) return this.finding("F1", "start-unseen", index);
        this.counts.signatures += 1;
        if (entry.void !== null) return;
        launch.started = index;
        this.starts.set(index, says);
      } else if (kind === "exited" || kind === "launch-refused") {
        if (entry.void !== null || !launch || (kind === "exited" && launch.started !== says.started)) {
          return this.finding("D2", "exit-without-start", index);
        }
        launch.ended = index;
      } else if (kind === "observed") {
        const start = this.starts.get(says.started);
        if (!start) return this.finding("F1", "observation-void", index);
        if (start.pid !== says.pid || start.agent !== says.agent) this.finding("F1", "observation-differs", index);
      } else if (kind === "action-intent") {
        this.intents.set(index, false);
      } else if (kind === "action-outcome" && this.intents.has(says.intent)) {
        this.intents.set(says.intent, true);
      }
    }

    async end(asOf) {
      for (const [index, answered] of this.intents) if (!answered) this.finding("D2", "outcome-missing", index);
      for (const [index, launch] of this.launches) {
        if (launch.started === undefined && launch.ended === undefined && launch.expires <= asOf) {
          this.finding("D2", "launch-unanswered", index);
        }
      }
      for (const index of this.coverage.uncovered(asOf)) this.finding("B2", "canary-window-uncovered", index);
      this.counts.windows = this.coverage.due;
      await this.supply.end();
      this.counts.signatures += this.supply.signatures;
    }
  }

  // What the release key signs of a release, by kind, and what is measured.
  const RELEASE = {
    provenance: "https://slsa.dev/provenance/v1",
    tests: "https://in-toto.io/attestation/test-result/v0.1",
    surface: `${TYPE_PREFIX}surface-manifest/v1`,
    install: `${TYPE_PREFIX}install-manifest/v1`,
  };
  const SERVICES = ["controller", "node", "gateway", "monitor"];
  const PACKAGE = "site/ironbound/";

  // SHA-256 over one `sha256  path` line for each file, by path, part by part.
  async function filesRoot(files) {
    const parts = (path) => path.replaceAll("/", "\u0001");
    const paths = Object.keys(files).sort((one, other) => (parts(one) < parts(other) ? -1 : 1));
    return hex(await digest(utf8.encode(paths.map((path) => `${files[path]}  ${path}\n`).join(""))));
  }
  function packageOf(files) {
    const own = Object.entries(files).filter(([path]) => path.startsWith(PACKAGE) && !path.split("/").includes("__pycache__"));
    return filesRoot(Object.fromEntries(own.map(([path, sha256]) => [path.slice(PACKAGE.length), sha256])));
  }

  // E1 to E3 as far as entries and signed statements tell: from the release key to what each sandbox consumed. What the
  // measuring services found is their word; whether they measured often enough is left to the verifier.
  class Supply {
    constructor(trust, statements, judge) {
      Object.assign(this, { trust, statements, judge, key: trust.says.release, signatures: 0 });
      this.lives = Object.fromEntries(SERVICES.map((role) => [role, []]));
      this.looks = Object.fromEntries([...SERVICES, "ledger"].map((role) => [role, []]));
      this.given = new Map(); // what it is about -> what humans gave, in order
      this.signed = new Map(); // digest -> what the release key signed under it
    }

    async take({ kind, says, index, role, asked, ...entry }, launch) {
      const valid = entry.void === null;
      if (kind === "service-started") {
        const manifest = says.measured?.manifest_sha256 ?? "";
        const build = [says.release_sha256, says.settings_sha256, manifest].join(" ");
        this.lives[role].push({ says, index, build, release: says.release_sha256, manifest });
      } else if (kind === "host-measured" && valid) this.looks[says.role].push({ says, index });
      else if (kind === "admitted" && asked) this.give(index, asked);
      else if (kind === "started" && valid && this.key) {
        const unasked = { module: says.module_sha256, config: says.config_sha256, asked: says.launch };
        const broken = await this.chain(says, launch ?? unasked);
        for (const code of broken) this.judge.finding("E3", code, index);
        this.judge.entries.at(-1).chain = broken;
      }
    }

    give(index, { kind, says, signers, needed }) {
      const { release_sha256: release, settings_sha256: settings, statements } = says.body ?? {};
      const about = {
        "release-approval": () => [release, settings, statements.install].join(" "),
        "launch-request": () => index,
        "module-approval": () => says.module_sha256,
        "profile-approval": () => says.config_sha256,
      }[kind]?.();
      if (about !== undefined) {
        const gift = { index, signers, needed, release, statements, withdrawn: false };
        this.given.set(about, [...(this.given.get(about) ?? []), gift]);
      } else if (kind === "key-compromised") this.withdraw(says.body);
    }

    // What rests on too few without a key that was flagged, from where it was, carries no launch from now on.
    withdraw({ key, since }) {
      for (const gift of [...this.given.values()].flat()) {
        if (gift.index >= since) gift.signers = gift.signers.filter((one) => !one.ids.includes(key));
        gift.withdrawn ||= gift.signers.length < gift.needed;
      }
    }
    holds(about) {
      return (this.given.get(about) ?? []).findLast((one) => !one.withdrawn);
    }

    // The codes of each broken link of one launch, as it stood when it started.
    async chain(says, launch) {
      const broken = [];
      const life = (role) => this.lives[role].at(-1);
      const node = life("node");
      const release = node && this.holds(node.build);
      if (!node) broken.push("service-not-announced");
      else if (!release) broken.push("release-unapproved");
      else broken.push(...Object.values((await this.read(release)).wrong));
      for (const role of SERVICES) {
        if (!life(role)) broken.push("service-not-announced");
        else if (life(role).says.settings_sha256 !== node?.says.settings_sha256) broken.push("settings-differ");
        if (role !== "node" && life(role) && !this.holds(life(role).build)) broken.push("release-unapproved");
      }
      for (const [role, looks] of Object.entries(this.looks)) {
        const look = looks.at(-1);
        const own = role === "ledger" ? null : life(role);
        const same = (one) => look.index > one.index && look.says.pid === one.says.pid && look.says.pid_start === one.says.pid_start;
        if (!look || (own && !same(own))) broken.push("host-not-measured");
        else if (look.says.measured.differences.length) {
          broken.push(isGone(look.says.measured) || isHidden(look.says.measured) ? "host-not-visible" : "host-differs");
        } else if (namesAnother(own, look.says)) broken.push("host-differs");
      }
      if (!this.holds(launch.module)) broken.push("module-unapproved");
      if (!this.holds(launch.config)) broken.push("profile-unapproved");
      if (launch.asked !== undefined && !this.holds(launch.asked)) broken.push("launch-not-asked");
      if (says.config_sha256 !== launch.config) broken.push("consumed-config-differs");
      if (says.module_sha256 !== launch.module) broken.push("module-unapproved");
      return broken;
    }

    // The four statements of an approval: those that the release key signed, and what is wrong with the others.
    async read(gift) {
      if (gift.read) return gift.read;
      gift.read = { signed: {}, wrong: {} };
      for (const [kind, type] of Object.entries(RELEASE)) {
        const sha256 = gift.statements[kind];
        if (!(sha256 in this.statements)) {
          gift.read.wrong[kind] = "artifact-missing";
          continue;
        }
        if (!this.signed.has(sha256)) this.signed.set(sha256, this.statement(sha256));
        const said = await this.signed.get(sha256);
        if (said?.type === type) gift.read.signed[kind] = said;
        else gift.read.wrong[kind] = "release-not-signed";
      }
      return gift.read;
    }
    async statement(sha256) {
      const bytes = entryBytes(this.statements[sha256]);
      if (hex(await digest(bytes)) !== sha256) fail("artifact-differs", `${sha256} are other bytes`);
      try {
        const { body, signatures } = envelopeOf(parseCanonical(text(bytes)));
        const raw = base64(this.key.public);
        const alone = signatures.length === 1 && signatures[0].keyid === (await keyid(raw));
        if (!alone || !(await ed25519(raw, signatures[0].sig, pae(body)))) return null;
        this.signatures += 1;
        const { _type, predicateType: type, predicate: says, subject } = parseCanonical(text(body));
        const wheels = subject.filter((one) => one.name.endsWith(".whl"));
        return _type === IN_TOTO && wheels.length === 1 ? { type, says, wheel: wheels[0].digest.sha256 } : null;
      } catch {
        return null;
      }
    }

    async end() {
      const found = (claim, code, index) => this.judge.finding(claim, code, index);
      if (!this.key) return ["E1", "E2", "E3"].forEach((claim) => found(claim, "no-release", 0));
      const releases = [...this.given.values()].flat().filter((one) => one.release);
      const named = (manifest) => releases.filter((one) => one.statements.install === manifest);
      const used = new Map();
      const judged = new Set();
      for (const role of SERVICES) {
        if (!this.lives[role].length) found("E1", "service-not-announced", null);
        for (const { says, index, release, manifest } of this.lives[role]) {
          const known = named(manifest).filter((one) => one.release === release);
          if (says.measured) {
            used.set(`${release} ${manifest}`, { known, index: used.get(`${release} ${manifest}`)?.index ?? index });
            await this.measured(says.measured, index, named(manifest));
          }
          if (!known.length) found("E2", "release-unknown", index);
          for (const one of known) await this.surface(one, role === "gateway" ? { says, index } : null, judged);
        }
      }
      const manifests = new Set([...used.keys()].map((one) => one.split(" ")[1]));
      for (const { says, index } of Object.values(this.looks).flat()) {
        const { manifest_sha256: manifest } = says.measured;
        if (isGone(says.measured)) continue;
        await this.measured(says.measured, index, named(manifest));
        const life = this.lives[says.role]?.findLast((one) => one.index < index);
        if (!says.measured.differences.length && namesAnother(life, says)) found("E1", "host-differs", index);
        if (!named(manifest).length && !manifests.has(manifest)) found("E1", "release-unknown", index);
      }
      for (const { known, index } of used.values()) {
        if (!known.length) found("E1", "release-unknown", index);
        for (const one of known) {
          const { signed, wrong } = await this.read(one);
          for (const [kind, code] of Object.entries(wrong)) if (kind !== "surface") found("E1", code, one.index);
          for (let count = await contradictions(one, signed); count > 0; count--) found("E1", "release-contradicts", one.index);
          if (signed.tests?.says.result === "FAILED") found("E1", "release-tests-failed", one.index);
        }
      }
    }

    // E1: what was found of an installation is what a manifest with this digest says.
    async measured(measured, index, releases) {
      const found = (code) => this.judge.finding("E1", code, index);
      if (measured.differences.length) return found(isHidden(measured) ? "host-not-visible" : "host-differs");
      for (const one of releases) {
        const files = (await this.read(one)).signed.install?.says.files;
        if (!files) continue;
        one.root ??= await filesRoot(files);
        if (measured.files !== Object.keys(files).length || measured.root !== one.root) found("measurement-differs");
      }
    }

    // E2: what the surface statement of a release says, once, and what a gateway that ran it named.
    async surface(release, gateway, judged) {
      const { signed, wrong } = await this.read(release);
      const found = (code, index = release.index) => this.judge.finding("E2", code, index);
      if (!judged.has(release)) {
        judged.add(release);
        if (wrong.surface) found(wrong.surface);
        else {
          const { verdict, switches, unlisted, unread } = signed.surface.says;
          for (let count = await contradictions(release, signed); count > 0; count--) found("release-contradicts");
          if (verdict === "PRESENT-ACTIVE" || switches.active || unlisted) found("surface-open");
          if (unread) found("surface-not-scanned");
        }
      }
      if (gateway === null) return;
      const surface = gateway.says.surface_sha256;
      if (surface === null) found("surface-not-announced", gateway.index);
      else if (signed.surface && surface !== signed.surface.says.agent_surface_sha256) found("agent-surface-differs", gateway.index);
    }
  }

  const isGone = ({ differences }) => differences.length > 0 && differences.every((one) => one.path === "process/start");
  const isHidden = ({ differences }) => differences.every((one) => String(one.got).startsWith("not seen"));

  // Whether a process said that it is of another installation than the one that the monitor found it to be of.
  function namesAnother(life, { pid, pid_start, measured }) {
    const own = life?.says.measured;
    if (!own || life.says.pid !== pid || life.says.pid_start !== pid_start) return false;
    return own.manifest_sha256 !== measured.manifest_sha256 && own.root !== measured.root;
  }

  // In how many ways the statements of a release are not about one and the same.
  async function contradictions({ release }, { install, tests, ...more }) {
    const wheels = new Set([install, tests, ...Object.values(more)].filter((one) => one).map((one) => one.wheel));
    let count = wheels.size > 1 ? 1 : 0;
    if (install && install.says.package_sha256 !== release) count += 1;
    if (install && (await packageOf(install.says.files)) !== release) count += 1;
    if (tests && (tests.says.package_sha256 ?? release) !== release) count += 1;
    return count;
  }

  // Which windows of the time in which a configuration was in use have a refusal of each canary.
  class Coverage {
    constructor(interval) {
      Object.assign(this, { interval, clockMs: 0, due: 0, periods: [], latest: new Map(), ofLaunch: new Map() });
      Object.assign(this, { release: "", challenges: new Map(), approved: new Map(), refusals: new Map() });
    }

    approve(asked, at) {
      const probe = asked.kind === "module-approval" ? asked.says.body.probe : null;
      if (probe !== null) this.approved.set(asked.says.module_sha256, { at, family: probe.family });
    }

    take({ kind, says, index }, launch, monitorMs) {
      this.clockMs = Math.max(this.clockMs, says.at_ms);
      if (kind === "service-started" && says.role === "node") this.release = says.release_sha256;
      else if (kind === "canary-challenge") this.challenges.set(index, says);
      else if (kind === "started" && launch && launch.nonce === undefined) this.begin(says, index);
      else if (kind === "exited") {
        const period = this.ofLaunch.get(says.launch);
        if (period) {
          this.ofLaunch.delete(says.launch);
          period.running.delete(says.launch);
          period.end = Math.max(period.end, this.clockMs); // not before what others had said by then
        }
      } else if (kind === "canary-result") {
        const asked = this.challenges.get(says.challenge);
        const late = Math.max(says.at_ms, monitorMs) - (asked?.at_ms ?? 0) > ANSWER_MS;
        if (!asked || late || says.verdict !== "REFUSED" || says.nonce !== asked.nonce) return;
        const name = this.build(asked.config_sha256, says, says.release_sha256) + asked.module_sha256;
        this.refusals.set(name, [...(this.refusals.get(name) ?? []), asked.at_ms]);
      }
    }

    build(config, says, release) {
      return `${config} ${says.runtime_sha256} ${says.boot_id} ${release} `;
    }

    begin(says, index) {
      const build = this.build(says.config_sha256, says, this.release);
      let period = this.latest.get(build);
      if (!period || (!period.running.size && says.at_ms - period.end >= this.interval)) {
        period = { build, index, begin: says.at_ms, end: says.at_ms, running: new Set(), family: FAMILIES[says.runtime] };
        this.latest.set(build, period);
        this.periods.push(period);
      }
      period.running.add(says.launch);
      period.end = Math.max(period.end, says.at_ms);
      this.ofLaunch.set(says.launch, period);
    }

    // The index of each period in which some window of some canary, tried on that build, has no refusal.
    uncovered(asOf) {
      const found = new Set();
      for (const period of this.periods) {
        const stop = Math.max(period.begin, period.running.size ? asOf : period.end);
        for (const [module, { at, family }] of this.approved) {
          const begin = Math.max(period.begin, at);
          if (begin > stop || !(family === period.family || (family === "native" && period.family === "microvm"))) continue;
          const count = Math.max(1, Math.ceil((stop - begin) / this.interval));
          this.due += count;
          const times = (this.refusals.get(period.build + module) ?? []).sort((one, other) => one - other);
          if (!times.length) continue; // the canary never ran on this build: another code, which Python gives
          const windows = new Set();
          for (const time of times) {
            const window = Math.floor((time - begin) / this.interval);
            if (window >= 0 && window < count) windows.add(window);
          }
          const last = times.filter((time) => time <= stop).at(-1);
          if (last !== undefined && stop - last <= this.interval) windows.add(count - 1);
          const open = begin + count * this.interval > asOf && count > 1;
          for (let window = 0; window < count - (open ? 1 : 0); window++) if (!windows.has(window)) found.add(period.index);
        }
      }
      return found;
    }
  }

  // The codes that this page finds by itself, per claim; of all others it has no opinion.
  const SCOPE = {
    C1: ["request-not-authorised"],
    D2: ["outcome-missing", "launch-unanswered", "exit-without-start"],
    D3: ["voice-unknown", "signature-invalid", "voice-not-entitled", "other-deployment", "said-twice"],
    F1: ["start-unseen", "observation-differs", "observation-void"],
    B2: ["canary-window-uncovered"],
    E1: [
      "no-release", "service-not-announced", "release-unknown", "release-not-signed", "artifact-missing",
      "release-contradicts", "release-tests-failed", "host-differs", "host-not-visible", "measurement-differs",
    ],
    E2: [
      "no-release", "release-unknown", "release-not-signed", "artifact-missing", "release-contradicts", "surface-open",
      "surface-not-scanned", "surface-not-announced", "agent-surface-differs",
    ],
    E3: [
      "no-release", "service-not-announced", "release-unapproved", "release-not-signed", "artifact-missing",
      "settings-differ", "host-not-measured", "host-not-visible", "host-differs", "module-unapproved",
      "profile-unapproved", "launch-not-asked", "consumed-config-differs",
    ],
  };
  // What a claim can't be judged without; a large log has some of it as hashes only.
  const NEEDS = {
    D2: ["action-intent", "started", "exited", "canary-challenge"], F1: ["started", "observed"],
    B2: ["service-started", "started", "exited", "canary-challenge", "canary-result"],
    E1: ["service-started", "host-measured", "statements"], E2: ["service-started", "statements"],
    E3: ["service-started", "host-measured", "started", "statements"],
  };

  // For each claim in scope: what this page found, what Python found of that kind, and whether they are the same.
  function compare({ found, dropped, unseen }, claims) {
    const rows = [];
    for (const [claim, codes] of Object.entries(SCOPE)) {
      const python = claims.find((one) => one.id === claim);
      const theirs = codes.filter((code) => python.reasons.some((reason) => reason.code === code));
      const ours = codes.filter((code) => found[claim][code]?.length);
      const lacks = (NEEDS[claim] ?? []).filter((kind) => dropped.has(kind));
      const differ = lacks.length ? [] : [...new Set([...theirs, ...ours])].filter((code) => {
        const said = python.reasons.find((reason) => reason.code === code)?.total ?? 0;
        const all = found[claim][code] ?? [];
        const own = claim.startsWith("E") ? all.length : new Set(all).size;
        if (claim === "B2") return !said !== !own;
        return claim === "D3" && unseen ? own > said : own !== said;
      });
      rows.push({ claim, ours, theirs, agrees: differ.length === 0, differ, lacks });
    }
    return rows;
  }

  return { run, compare, Broken, SCOPE, canonical };
})();
