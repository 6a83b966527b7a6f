// TypeScript SDK 2.4 (protocol 2026-07-28 and before): `stdio` or `http PORT`.
import { createServer } from "node:http";
import { createMcpHandler, fromJsonSchema, McpServer } from "@modelcontextprotocol/server";
import { serveStdio } from "@modelcontextprotocol/server/stdio";
import { PIXEL } from "./pixel.mjs";

function server() {
  const made = new McpServer({ name: "new", version: "1" });
  const number = { type: "number" };
  const numbers = fromJsonSchema({ type: "object", properties: { a: number, b: number }, required: ["a", "b"] });
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
  serveStdio(server);
} else {
  const handler = createMcpHandler(server);
  createServer(async (request, response) => {
    const body = await new Response(request).arrayBuffer();
    const plain = ["GET", "HEAD"].includes(request.method);
    const init = { method: request.method, headers: request.headers, body: plain ? undefined : body };
    const answer = await handler.fetch(new Request(`http://127.0.0.1:${port}${request.url}`, init));
    response.writeHead(answer.status, Object.fromEntries(answer.headers));
    for await (const piece of answer.body ?? []) response.write(piece);
    response.end();
  }).listen(Number(port), "127.0.0.1");
}
