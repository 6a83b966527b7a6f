// TypeScript SDK 1.32 (protocol 2025-11-25 and before): `stdio` or `http PORT`.
import { randomUUID } from "node:crypto";
import { createServer } from "node:http";
import { McpServer } from "@modelcontextprotocol/sdk/server/mcp.js";
import { StdioServerTransport } from "@modelcontextprotocol/sdk/server/stdio.js";
import { StreamableHTTPServerTransport } from "@modelcontextprotocol/sdk/server/streamableHttp.js";
import { z } from "zod";
import { PIXEL } from "./pixel.mjs";

function server() {
  const made = new McpServer({ name: "old", version: "1" });
  const numbers = { a: z.number(), b: z.number() };
  made.registerTool("add", { description: "Adds two numbers.", inputSchema: numbers }, ({ a, b }) => ({
    content: [{ type: "text", text: String(a + b) }],
  }));
  made.registerTool("picture", { description: "One pixel." }, () => ({
    content: [{ type: "image", data: PIXEL, mimeType: "image/png" }],
  }));
  made.registerTool("fails", { description: "Always fails." }, () => {
    throw new Error("no such thing");
  });
  return made;
}

const [transport, port] = process.argv.slice(2);
if (transport === "stdio") {
  await server().connect(new StdioServerTransport());
} else {
  const sessions = new Map();
  createServer(async (request, response) => {
    let found = sessions.get(request.headers["mcp-session-id"]);
    if (found === undefined) {
      found = new StreamableHTTPServerTransport({
        sessionIdGenerator: randomUUID,
        onsessioninitialized: (id) => sessions.set(id, found),
      });
      await server().connect(found);
    }
    await found.handleRequest(request, response);
  }).listen(Number(port), "127.0.0.1");
}
