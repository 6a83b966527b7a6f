// The command line that both SDKs' scripts share:
//   SCRIPT --transport http|sse --url URL [--header "Name: value"]... [--tool NAME --arguments JSON] [--era legacy|auto|2026-07-28]
//   SCRIPT --transport stdio [--env NAME=value]... [--tool NAME --arguments JSON] -- COMMAND ARG...
// --calls FILE makes many calls, one after the other; the file holds [[tool, arguments]].
import { readFileSync } from "node:fs";
import { parseArgs } from "node:util";

const split = (text, mark) => {
  const at = text.indexOf(mark);
  return [text.slice(0, at).trim(), text.slice(at + mark.length).trim()];
};

export function options() {
  const { values, positionals } = parseArgs({
    allowPositionals: true,
    options: {
      transport: { type: "string" },
      url: { type: "string" },
      header: { type: "string", multiple: true, default: [] },
      env: { type: "string", multiple: true, default: [] },
      tool: { type: "string" },
      arguments: { type: "string", default: "{}" },
      calls: { type: "string" },
      era: { type: "string", default: "auto" },
    },
  });
  return {
    ...values,
    url: values.url && new URL(values.url),
    headers: Object.fromEntries(values.header.map((h) => split(h, ":"))),
    env: Object.fromEntries(values.env.map((e) => split(e, "="))),
    arguments: JSON.parse(values.arguments),
    calls: values.calls ? JSON.parse(readFileSync(values.calls, "utf8")) : [],
    command: positionals[0],
    args: positionals.slice(1),
  };
}

// Lists every page, calls `tool` if one is named, makes `calls`, prints {server, instructions, tools, result, results} and ends.
export async function listAndCall(client, transport, wanted, server) {
  await client.connect(transport);
  const tools = [];
  let cursor;
  do {
    const page = await client.listTools(cursor === undefined ? undefined : { cursor });
    tools.push(...page.tools);
    cursor = page.nextCursor;
  } while (cursor !== undefined);
  const result = wanted.tool && (await client.callTool({ name: wanted.tool, arguments: wanted.arguments }));
  const results = [];
  for (const [name, given] of wanted.calls) results.push(await client.callTool({ name, arguments: given }));
  console.log(JSON.stringify({ ...server(client), instructions: client.getInstructions(), tools, result, results }));
  await client.close();
}
