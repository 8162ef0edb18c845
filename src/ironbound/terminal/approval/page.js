
"use strict";
const main = document.querySelector("main");
const say = document.querySelector("#status");
const sign = document.querySelector("#sign");
const decline = document.querySelector("#decline");
const options = JSON.parse(main.dataset.options);

const bytes = (text) => Uint8Array.from(atob(text.replaceAll("-", "+").replaceAll("_", "/")), (char) => char.charCodeAt(0));
const text = (buffer) => btoa(String.fromCharCode(...new Uint8Array(buffer)))
  .replaceAll("+", "-").replaceAll("/", "_").replaceAll("=", "");

function tell(words, mood) {
  say.textContent = words;
  say.className = mood;
}

function done(words, mood) {
  sign.disabled = decline.disabled = true;
  document.body.dataset.ended = mood;
  tell(words, mood);
}

async function answer(value) {
  const response = await fetch(location.pathname, {
    method: "POST",
    headers: { "content-type": "application/json", "ironbound-page": main.dataset.secret },
    body: JSON.stringify(value),
  });
  return response.json();
}

async function asserted() {
  const got = await navigator.credentials.get({ publicKey: {
    challenge: bytes(options.challenge),
    rpId: options.rpId,
    allowCredentials: options.credentials.map((id) => ({ type: "public-key", id: bytes(id) })),
    userVerification: "required",
    timeout: options.timeout,
  } });
  return {
    authenticatorData: text(got.response.authenticatorData),
    clientDataJSON: text(got.response.clientDataJSON),
    signature: text(got.response.signature),
  };
}

async function created() {
  const got = await navigator.credentials.create({ publicKey: {
    challenge: bytes(options.challenge),
    rp: { id: options.rpId, name: options.party },
    user: { id: bytes(options.user), name: options.name, displayName: options.name },
    pubKeyCredParams: [{ type: "public-key", alg: -7 }, { type: "public-key", alg: -8 }],
    authenticatorSelection: { residentKey: "discouraged", userVerification: "required" },
    attestation: "none",
    timeout: options.timeout,
  } });
  return {
    id: got.id,
    response: {
      authenticatorData: text(got.response.getAuthenticatorData()),
      clientDataJSON: text(got.response.clientDataJSON),
      publicKey: text(got.response.getPublicKey()),
    },
  };
}

sign.addEventListener("click", async () => {
  sign.disabled = decline.disabled = true;
  tell("Waiting for your passkey…", "");
  let value;
  try {
    value = options.challengeFor === "create" ? await created() : await asserted();
  } catch (error) {
    sign.disabled = decline.disabled = false;
    document.body.dataset.failed = error.name;
    tell(error.name === "NotAllowedError"
      ? "The passkey did not sign: it is not here, it could not verify you, or you took too long. You can try again."
      : `The browser refused: ${error.name}. You can try again.`, "bad");
    return;
  }
  try {
    const said = await answer(value);
    if (said.next) {
      location.replace(said.next);
    } else if (said.accepted) {
      done("Done. Your command goes on; you can close this page.", "good");
    } else if (said.again) {
      sign.disabled = decline.disabled = false;
      document.body.dataset.failed = said.reason;
      tell(`Refused: ${said.text} (${said.reason}). You can try again.`, "bad");
    } else {
      done(`Refused: ${said.text} (${said.reason}). The command has ended.`, "bad");
    }
  } catch {
    done("Your command does not answer any more. Start it again.", "bad");
  }
});

decline.addEventListener("click", async () => {
  done("Nothing was signed; you can close this page.", "good");
  try {
    await answer({ declined: true });
  } catch {
    done("Nothing was signed. Your command had ended already.", "good");
  }
});
