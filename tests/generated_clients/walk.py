"""One walk with a client that openapi-python-client made of the contract: `python walk.py URL KEY UPSTREAM`; the client is on sys.path."""

import sys
from http import HTTPStatus

from gw_client import AuthenticatedClient
from gw_client.api.integrations import (
    create_integration,
    delete_integration,
    get_integration,
    list_integrations,
    test_integration_endpoint,
    update_integration,
)
from gw_client.models import CreateIntegrationRequest, TestEndpointRequest, UpdateIntegrationRequest

url, key, upstream = sys.argv[1:]
client = AuthenticatedClient(base_url=url, token=key)
endpoint = {"name": "get_item", "description": "Gets one.", "method": "GET", "path": "/items/{id}"}
made = []
for n in range(3):
    body = {"name": f"shop{n}", "display_name": "Shop", "base_url": upstream, "endpoints": [endpoint]}
    created = create_integration.sync_detailed("acme", client=client, body=CreateIntegrationRequest.from_dict(body))
    assert created.status_code == HTTPStatus.CREATED, created.content
    made.append(created.parsed.id)
seen, token = [], 0
while token is not None:
    page = list_integrations.sync("acme", client=client, limit=2, continuation_token=token, sort_by="+name")
    seen += [item.id for item in page.items]
    token = page.continuation_token if page.has_more else None
assert seen == made, (seen, made)
got = get_integration.sync("acme", made[0], client=client)
changed = {**got.to_dict(), "display_name": "Changed"}
put = update_integration.sync_detailed("acme", made[0], client=client, body=UpdateIntegrationRequest.from_dict(changed))
assert put.status_code == HTTPStatus.OK, put.content
after = put.parsed.to_dict()
assert {n for n in after if after[n] != got.to_dict()[n]} == {"display_name", "updated_at"}
params = TestEndpointRequest.from_dict({"params": {"id": "7"}})
tested = test_integration_endpoint.sync("acme", made[0], "get_item", client=client, body=params)
assert (tested.status_code, tested.error) == (200, None), tested
assert delete_integration.sync_detailed("acme", made[0], client=client).status_code == HTTPStatus.NO_CONTENT
assert get_integration.sync_detailed("acme", made[0], client=client).status_code == HTTPStatus.NOT_FOUND
print("walked")
