"""The JWKS of an integration and its openid-configuration, which verifiers fetch without a key (rules D1, E1).

Answered from the registry's public parts; the secret store is never asked. Everything that isn't there is one and the same 404.
"""

import time
from collections.abc import Callable

import orjson
from fastapi import FastAPI, Request, Response

from server.app import App
from server.rest.routing import operation
from tools.errors import NotFound, RateLimited, StorageUnavailable
from tools.models import Integration
from tools.signing_keys import MAX_AGE, etag, jwks

_ONE = "/v1/{workspace_id}/integrations/{integration_id}"
_TAG = "Signing keys"
_NOTHING = "nothing is published here"
_WINDOW_S, _IN_WINDOW = 10.0, 200
_MAX_KEPT = 1000


class Published:
    """The documents of one process. What was answered before goes on through an outage of the registry (rules D1)."""

    def __init__(self, app: App, clock: Callable[[], float] = time.monotonic) -> None:
        self._app, self._clock = app, clock
        self._kept: dict[tuple[str, str], Integration] = {}
        self._asked: dict[str, int] = {}
        self._window = 0.0

    def count(self, client: str) -> None:
        """Apart from the API's own limits: 200 requests in 10 s from one address. Raises RateLimited."""
        now = self._clock()
        if now - self._window >= _WINDOW_S:
            self._window, self._asked = now, {}
        self._asked[client] = self._asked.get(client, 0) + 1
        if self._asked[client] > _IN_WINDOW:
            raise RateLimited("too many requests for public keys", retry_after_s=_WINDOW_S)

    async def integration(self, workspace: str, id: str) -> Integration:
        """With at least one published key. Raises NotFound, StorageUnavailable."""
        key = (workspace.lower(), id)
        try:
            found = await self._app.registry.get(workspace, id)
        except StorageUnavailable:
            if key not in self._kept:
                raise
            return self._kept[key]
        except NotFound:
            found = None
        # By id alone: names can be guessed.
        if found is None or found.id != id or not found.published_keys:
            self._kept.pop(key, None)
            raise NotFound(_NOTHING)
        if len(self._kept) >= _MAX_KEPT:
            self._kept.clear()
        self._kept[key] = found
        return found


def add_jwks(router: FastAPI, app: App) -> None:
    """Adds the public documents."""
    published = Published(app)

    async def keys(workspace_id: str, integration_id: str, request: Request) -> Response:
        published.count(request.client.host if request.client else "")
        found = await published.integration(workspace_id, integration_id)
        return _cached(request, jwks(found.published_keys))

    async def issuer(workspace_id: str, integration_id: str, request: Request) -> Response:
        published.count(request.client.host if request.client else "")
        found = await published.integration(workspace_id, integration_id)
        document = openid_configuration(found, app.settings.public_url)
        if document is None:
            raise NotFound(_NOTHING)
        return _cached(request, document)

    operation(
        router,
        "GET",
        _ONE + "/jwks.json",
        keys,
        "get-jwks",
        "Public keys of an integration",
        "What the other side registers. Needs no API key.",
        tag=_TAG,
        answers="Jwks",
        errors=(404,),
        public=True,
    )
    operation(
        router,
        "GET",
        _ONE + "/.well-known/openid-configuration",
        issuer,
        "get-openid-configuration",
        "The gateway as an issuer",
        "For gcp_wif with a key of the integration. Needs no API key.",
        tag=_TAG,
        answers="OpenidConfiguration",
        errors=(404,),
        public=True,
    )


def openid_configuration(integration: Integration, public_url: str) -> bytes | None:
    """OpenID Connect Discovery 1.0, section 3, as far as Google reads it; None where the gateway isn't the issuer."""
    own = f"{public_url}/v1/{integration.workspace_id}/integrations/{integration.id}"
    auth = integration.auth
    if not public_url or auth is None or auth.type != "gcp_wif" or auth.assertion_issuer not in (None, own):
        return None
    return orjson.dumps(
        {
            "issuer": own,
            "jwks_uri": f"{own}/jwks.json",
            "response_types_supported": ["id_token"],
            "subject_types_supported": ["public"],
            "id_token_signing_alg_values_supported": sorted({k.jwk["alg"] for k in integration.published_keys}),
        }
    )


def _cached(request: Request, document: bytes) -> Response:
    headers = {"Cache-Control": f"public, max-age={int(MAX_AGE.total_seconds())}", "ETag": etag(document)}
    if headers["ETag"] in request.headers.get("if-none-match", ""):
        return Response(status_code=304, headers=headers)
    return Response(document, media_type="application/json", headers=headers)
