// An MCP client that signs in: SCRIPT --sdk 1|2 --url URL --tool NAME. Prints {asked, result, token} and ends.
//
// Whoever sits at the browser follows each redirect with his cookies until one leads back to the client.
import { parseArgs } from "node:util";

const { values } = parseArgs({ options: { sdk: { type: "string" }, url: { type: "string" }, tool: { type: "string" } } });
const back = "http://127.0.0.1:9/callback";
const kept = {};
let asked;

const authProvider = {
  redirectUrl: back,
  clientMetadata: {
    client_name: "tests",
    redirect_uris: [back],
    application_type: "native",
    token_endpoint_auth_method: "none",
    grant_types: ["authorization_code", "refresh_token"],
  },
  clientInformation: () => kept.client,
  saveClientInformation: (client) => void (kept.client = client),
  tokens: () => kept.tokens,
  saveTokens: (tokens) => void (kept.tokens = tokens),
  redirectToAuthorization: (url) => void (asked = url),
  saveCodeVerifier: (verifier) => void (kept.verifier = verifier),
  codeVerifier: () => kept.verifier,
};

async function signIn(url) {
  const cookies = new Map();
  for (let hop = 0; hop < 10; hop++) {
    const cookie = [...cookies].map(([name, value]) => `${name}=${value}`).join("; ");
    const answer = await fetch(url, { redirect: "manual", headers: { cookie } });
    for (const set of answer.headers.getSetCookie()) {
      const [, name, value] = /^([^=]+)=([^;]*)/.exec(set);
      cookies.set(name, value);
    }
    url = new URL(answer.headers.get("location"), url);
    if (url.href.startsWith(back)) return url.searchParams;
  }
  throw new Error(`it didn't come back: ${url}`);
}

const sdk =
  values.sdk === "1"
    ? {
        ...(await import("@modelcontextprotocol/sdk/client/index.js")),
        ...(await import("@modelcontextprotocol/sdk/client/streamableHttp.js")),
      }
    : await import("@modelcontextprotocol/client");
const connect = async () => {
  const transport = new sdk.StreamableHTTPClientTransport(new URL(values.url), { authProvider });
  const client = new sdk.Client({ name: "tests", version: "1" });
  try {
    await client.connect(transport);
  } catch (error) {
    if (asked === undefined) throw error;
    return { transport };
  }
  return { client };
};

const { transport } = await connect();
const answer = await signIn(asked);
await transport.finishAuth(answer.get("code"), answer.get("iss") ?? undefined);
const { client } = await connect();
const result = await client.callTool({ name: values.tool, arguments: {} });
console.log(JSON.stringify({ asked, result, token: kept.tokens.access_token }));
await client.close();
