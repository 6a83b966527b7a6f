// An identity provider where people sign in: panva's oidc-provider with registration, PKCE and resource indicators.
//
// node oidc_login.mjs PORT. Whoever comes is user-1 and consents to everything; access tokens are RFC 9068 JWTs for the
// resource that was asked for, with the claim workspace. GET /counts tells how often each path was asked for.
import { Provider } from 'oidc-provider';

const [port] = process.argv.slice(2);
const counts = {};
const SCOPES = ['call', 'look', 'manage'];

const provider = new Provider(`http://127.0.0.1:${port}`, {
  scopes: ['openid', 'offline_access', ...SCOPES],
  clientAuthMethods: ['none', 'client_secret_basic', 'client_secret_post'],
  clientDefaults: { grant_types: ['authorization_code', 'refresh_token'], token_endpoint_auth_method: 'none' },
  findAccount: (ctx, id) => ({ accountId: id, claims: () => ({ sub: id }) }),
  interactions: { url: (ctx, interaction) => `/sign-in/${interaction.uid}` },
  extraTokenClaims: () => ({ workspace: 'acme' }),
  cookies: { keys: ['for tests'] },
  ttl: { AccessToken: 600, Grant: 600, Interaction: 600, Session: 600, RefreshToken: 600, IdToken: 600 },
  features: {
    devInteractions: { enabled: false },
    registration: { enabled: true },
    resourceIndicators: {
      enabled: true,
      useGrantedResource: () => true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: SCOPES.join(' '), audience: resource, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
});

async function signIn(ctx) {
  const { prompt, params, session, grantId } = await provider.interactionDetails(ctx.req, ctx.res);
  let result = { login: { accountId: 'user-1' } };
  if (prompt.name === 'consent') {
    const grant = grantId
      ? await provider.Grant.find(grantId)
      : new provider.Grant({ accountId: session.accountId, clientId: params.client_id });
    grant.addOIDCScope(['openid', ...(prompt.details.missingOIDCScope ?? [])].join(' '));
    for (const [resource, scopes] of Object.entries(prompt.details.missingResourceScopes ?? {})) {
      grant.addResourceScope(resource, scopes.join(' '));
    }
    result = { consent: { grantId: await grant.save() } };
  }
  ctx.respond = false;
  await provider.interactionFinished(ctx.req, ctx.res, result, { mergeWithLastSubmission: true });
}

provider.on('server_error', (ctx, error) => console.error('server_error', error));
for (const event of ['grant.error', 'authorization.error', 'registration_create.error']) {
  provider.on(event, (ctx, error) => console.error(event, error.error, error.error_description, error.error_detail));
}
provider.use(async (ctx, next) => {
  counts[ctx.path] = (counts[ctx.path] ?? 0) + 1;
  if (ctx.path === '/counts') ctx.body = counts;
  else if (ctx.path.startsWith('/sign-in/')) await signIn(ctx);
  else await next();
});
provider.listen(Number(port), '127.0.0.1');
