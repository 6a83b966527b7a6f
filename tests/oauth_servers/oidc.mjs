// A strict authorization server: panva's oidc-provider. node oidc.mjs PORT CLIENTS_FILE
//
// CLIENTS_FILE is a JSON list of clients as the provider takes them. GET /counts tells how many token requests came.
// Strict: a jti once, aud, algorithm as registered, Basic read by the letter of RFC 6749; the 5-minute rule is ours.
import { readFileSync } from 'node:fs';
import { Provider } from 'oidc-provider';

const [port, clientsFile] = process.argv.slice(2);
const issuer = `http://127.0.0.1:${port}`;
let requests = 0;

const provider = new Provider(issuer, {
  clients: JSON.parse(readFileSync(clientsFile, 'utf8')),
  scopes: ['read', 'write', 'system/Patient.rs'],
  clientAuthMethods: ['client_secret_basic', 'client_secret_post', 'private_key_jwt', 'none'],
  enabledJWA: { clientAuthSigningAlgValues: ['RS384', 'ES384'] },
  features: {
    devInteractions: { enabled: false },
    clientCredentials: { enabled: true },
    resourceIndicators: {
      enabled: true,
      getResourceServerInfo: (ctx, resource) => ({
        scope: 'read write system/Patient.rs', audience: resource, accessTokenFormat: 'jwt', jwt: { sign: { alg: 'RS256' } },
      }),
    },
  },
  ttl: { ClientCredentials: 600 },
  assertJwtClientAuthClaimsAndHeader: async (ctx, claims) => {
    if (claims.exp > Date.now() / 1000 + 300) throw new Error('exp is too far in the future');
  },
});
provider.on('grant.error', (ctx, error) => console.error('grant.error', error.error, error.error_description, error.error_detail));
provider.use(async (ctx, next) => {
  if (ctx.path === '/counts') {
    ctx.body = { requests };
    return;
  }
  if (ctx.path === '/token') requests += 1;
  await next();
});
provider.listen(Number(port), '127.0.0.1');
