// One walk with openapi-fetch, typed by what openapi-typescript made of the contract: `node walk.js URL KEY UPSTREAM`.
import createClient from "openapi-fetch";
import type { components, paths } from "./contract.js";

declare const process: { argv: string[] };
const [url, key, upstream] = process.argv.slice(2) as [string, string, string];
const client = createClient<paths>({ baseUrl: url, headers: { Authorization: `Bearer ${key}` } });
const all = "/v1/{workspace_id}/integrations";
const one = "/v1/{workspace_id}/integrations/{integration_id}";

function must(holds: unknown, what: unknown): asserts holds {
  if (!holds) throw new Error(JSON.stringify(what));
}

const made: string[] = [];
for (const n of [0, 1, 2]) {
  const body = {
    name: `shop${n}`,
    display_name: "Shop",
    base_url: upstream,
    endpoints: [{ name: "get_item", description: "Gets one.", method: "GET", path: "/items/{id}" }],
  } as components["schemas"]["CreateIntegrationRequest"];
  const created = await client.POST(all, { params: { path: { workspace_id: "acme" } }, body });
  must(created.response.status === 201 && created.data, created);
  made.push(created.data.id);
}
const seen: string[] = [];
let token: number | null | undefined = 0;
while (token !== null && token !== undefined) {
  const query: { limit: number; continuation_token: number; sort_by: string } = { limit: 2, continuation_token: token, sort_by: "+name" };
  const page: { data?: components["schemas"]["PaginatedResponse_IntegrationResponse_"] } = await client.GET(all, {
    params: { path: { workspace_id: "acme" }, query },
  });
  must(page.data, page);
  seen.push(...page.data.items.map((item) => item.id));
  token = page.data.has_more ? page.data.continuation_token : null;
}
must(JSON.stringify(seen) === JSON.stringify(made), [seen, made]);
const path = { workspace_id: "acme", integration_id: made[0]! };
const got = await client.GET(one, { params: { path } });
must(got.data, got);
// The contract's answers have plain strings where its requests have choices (protocol, mcp_transport).
const changed = { ...got.data, display_name: "Changed" } as components["schemas"]["UpdateIntegrationRequest"];
const put = await client.PUT(one, { params: { path }, body: changed });
must(put.response.status === 200 && put.data?.display_name === "Changed", put);
must(JSON.stringify(put.data.endpoints) === JSON.stringify(got.data.endpoints), put.data);
const tested = await client.POST("/v1/{workspace_id}/integrations/{integration_id}/endpoints/{endpoint_name}/test", {
  params: { path: { ...path, endpoint_name: "get_item" } },
  body: { params: { id: "7" } },
});
must(tested.data?.status_code === 200 && !tested.data.error, tested);
must((await client.DELETE(one, { params: { path } })).response.status === 204, "delete");
must((await client.GET(one, { params: { path } })).response.status === 404, "gone");
console.log("walked");
