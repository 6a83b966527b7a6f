// TypeScript SDK 2.4 (2026-07-28 and legacy). See options.mjs for the command line; `--era` is legacy, auto or a version.
import { Client, SSEClientTransport, StreamableHTTPClientTransport } from "@modelcontextprotocol/client";
import { StdioClientTransport } from "@modelcontextprotocol/client/stdio";
import { listAndCall, options } from "./options.mjs";

const wanted = options();
const requestInit = { headers: wanted.headers };
const transport = {
  http: () => new StreamableHTTPClientTransport(wanted.url, { requestInit }),
  sse: () => new SSEClientTransport(wanted.url, { requestInit }),
  stdio: () => new StdioClientTransport({ command: wanted.command, args: wanted.args, env: wanted.env, stderr: "inherit" }),
}[wanted.transport]();
const mode = ["legacy", "auto"].includes(wanted.era) ? wanted.era : { pin: wanted.era };

await listAndCall(new Client({ name: "tests", version: "1" }, { versionNegotiation: { mode } }), transport, wanted, (client) => ({
  server: client.getServerVersion(),
  era: client.getProtocolEra(),
  version: client.getNegotiatedProtocolVersion(),
}));
