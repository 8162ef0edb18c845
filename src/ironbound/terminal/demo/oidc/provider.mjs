// The identity provider of the demo and the tests: oidc-provider, a login page, public clients. `provider.py` starts it.
//
// The first line of its input is its settings: {port, jwks, accounts: {name: password}, acr, clients: [id], token_s}.
// It says `ready` once it serves, and ends when its input does, so that nothing is left behind.
import { createInterface } from 'node:readline'

import Provider, { interactionPolicy } from 'oidc-provider'

const input = createInterface({ input: process.stdin })
const settings = JSON.parse(await new Promise((resolve) => input.once('line', resolve)))
input.on('close', () => process.exit(0))

// Nobody is asked for consent: what these clients may ask for is one thing, and the login is about that.
const policy = interactionPolicy.base()
policy.get('consent').checks.remove('native_client_prompt')

const DEVICE = 'urn:ietf:params:oauth:grant-type:device_code'
const provider = new Provider(`http://127.0.0.1:${settings.port}`, {
  clients: settings.clients.map((id) => ({
    client_id: id,
    application_type: 'native',
    token_endpoint_auth_method: 'none',
    redirect_uris: ['http://127.0.0.1/callback'],
    response_types: ['code'],
    grant_types: ['authorization_code', DEVICE],
    id_token_signed_response_alg: settings.jwks.keys[0].alg,
  })),
  jwks: settings.jwks,
  enabledJWA: { idTokenSigningAlgValues: ['RS256', 'ES256', 'EdDSA'] },
  acrValues: [settings.acr, 'urn:test:password'],
  cookies: { keys: ['of the tests'] },
  features: { devInteractions: { enabled: false }, deviceFlow: { enabled: true } },
  findAccount: (_, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { policy, url: (_, interaction) => `/login/${interaction.uid}` },
  loadExistingGrant: async (ctx) => {
    const grant = new provider.Grant({
      clientId: ctx.oidc.client.clientId,
      accountId: ctx.oidc.session.accountId,
    })
    grant.addOIDCScope('openid')
    await grant.save()
    return grant
  },
  ttl: { IdToken: settings.token_s, Session: 86400, Interaction: 3600, Grant: 86400, AccessToken: 60, DeviceCode: 600 },
})

const PAGE = (uid, said) => `<!doctype html><html lang="en"><title>Log in</title>
<form method="post" action="/login/${uid}">
<p id="said">${said}</p>
<label>Name <input name="name" id="name" autocomplete="off"></label>
<label>Password <input name="password" id="password" type="password"></label>
<button type="submit" id="login">Log in</button>
</form></html>`

const posted = async (request) => {
  let body = ''
  for await (const piece of request) body += piece
  return Object.fromEntries(new URLSearchParams(body))
}

provider.use(async (ctx, next) => {
  const found = /^\/login\/([\w-]+)$/.exec(ctx.path)
  if (!found) return next()
  await provider.interactionDetails(ctx.req, ctx.res)
  if (ctx.method !== 'POST') {
    ctx.body = PAGE(found[1], '')
    return
  }
  const form = await posted(ctx.req)
  if (!Object.hasOwn(settings.accounts, form.name) || settings.accounts[form.name] !== form.password) {
    ctx.status = 403
    ctx.body = PAGE(found[1], 'no such name and password')
    return
  }
  ctx.respond = false
  // `ago` makes the session one of so many seconds ago, `acr` a weaker login: what the tests are about.
  const ts = Math.floor(Date.now() / 1000) - Number(form.ago ?? 0)
  const login = { accountId: form.name, acr: form.acr ?? settings.acr, ts, remember: true }
  await provider.interactionFinished(ctx.req, ctx.res, { login }, { mergeWithLastSubmission: false })
})

provider.on('server_error', (_, error) => console.error(error))
provider.listen(settings.port, '127.0.0.1', () => console.log('ready'))
