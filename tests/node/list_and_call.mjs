// TypeScript SDK 1.32 (protocol 2025-11-25 and before). See options.mjs for the command line; `--era` has no effect.
import { Client } from "@modelcontextprotocol/sdk/client/index.js";
import { SSEClientTransport } from "@modelcontextprotocol/sdk/client/sse.js";
import { StdioClientTransport } from "@modelcontextprotocol/sdk/client/stdio.js";
import { StreamableHTTPClientTransport } from "@modelcontextprotocol/sdk/client/streamableHttp.js";
import { listAndCall, options } from "./options.mjs";

const wanted = options();
const requestInit = { headers: wanted.headers };
const transport = {
  http: () => new StreamableHTTPClientTransport(wanted.url, { requestInit }),
  sse: () => new SSEClientTransport(wanted.url, { requestInit }),
  stdio: () => new StdioClientTransport({ command: wanted.command, args: wanted.args, env: wanted.env, stderr: "inherit" }),
}[wanted.transport]();

await listAndCall(new Client({ name: "tests", version: "1" }), transport, wanted, (client) => ({
  server: client.getServerVersion(),
}));
