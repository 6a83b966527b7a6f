"""Management of keys and tokens: the same functions for REST, CLI and admin tools. The private part of a key is never an answer.

Every function takes the caller first, checks his permission and his narrowing, and raises `RequestError`s.
"""

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

from tools.admin import Admin
from tools.bindings import origins_of, provisioned_path
from tools.callers import Caller
from tools.credentials.keys import key_faults
from tools.credentials.parts import CredentialParts
from tools.credentials.xray import xray
from tools.errors import BuiltinReadOnly, CallError, Forbidden, InvalidRequest, Issue, NotFound
from tools.generated_keys import new_key
from tools.kinds.paths import origin_of
from tools.models import AuthConfig, Binding, Integration, PublishedKey
from tools.registry import Registry
from tools.signing_keys import KEY_TYPES, activated, active_key, advanced, jwks, next_key, public_of, shown
from tools.writing import Changed, Writer, Written


class AuthAdmin:
    """`public_url` is where the JWKS is reachable, empty where none is configured."""

    def __init__(
        self,
        admin: Admin,
        registry: Registry,
        writer: Writer,
        parts_of: Callable[[Integration], CredentialParts],
        *,
        prefix: str = "gw",
        public_url: str = "",
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._admin, self._registry, self._writer, self._parts_of = admin, registry, writer, parts_of
        self._prefix, self._public_url, self._now = prefix, public_url, now

    # ------------------------------------------------------------------ keys

    async def keys(self, caller: Caller, ref: str) -> dict[str, Any]:
        """The signing keys with their states, and the URL of the JWKS."""
        integration = await self._admin.get(caller, ref)
        return self._told(integration)

    async def jwks(self, caller: Caller, ref: str) -> bytes:
        """The published document, the same bytes (rules D3). Raises NotFound where no key is published."""
        integration = await self._admin.get(caller, ref)
        if not integration.published_keys:
            raise NotFound(f"{integration.name} publishes no key: integrations-mcp auth generate-key makes one")
        return jwks(integration.published_keys)

    async def generate_key(
        self, caller: Caller, ref: str, alg: str | None = None, *, hold: bool = False, compromised: bool = False
    ) -> dict[str, Any]:
        """Makes a key in the secret store. It signs at once where it is the first; else it is published and its turn comes by
        time, with `hold` not before `confirm_key`. `compromised`: it signs at once and the old one is unpublished (rules D2).
        """
        integration = await self._to_change(caller, ref)
        auth = integration.auth
        if auth is None or auth.type not in KEY_TYPES:
            raise _refused(f"{integration.name} doesn't sign with a key: its auth is {auth.type if auth else 'none'}")
        before = active_key(integration)
        text = await new_key(auth, alg, ("body", "alg"), before.jwk["alg"] if before is not None else None)

        def step(current: Integration) -> Changed:
            return self._with_next(current, text, hold=hold, compromised=compromised)

        return self._told(_after(await self._writer.change(integration.workspace_id, integration.id, step)))

    async def confirm_key(self, caller: Caller, ref: str) -> dict[str, Any]:
        """The other side has the held next key: it signs when it has been published long enough."""
        integration = await self._to_change(caller, ref)

        def step(current: Integration) -> Changed:
            if not any(k.hold for k in current.published_keys):
                raise _refused(f"no key of {current.name} waits for a confirmation")
            keys = tuple(k.model_copy(update={"hold": False}) for k in current.published_keys)
            confirmed = current.model_copy(update={"published_keys": keys})
            return advanced(confirmed, self._now()) or confirmed, {}

        return self._told(_after(await self._writer.change(integration.workspace_id, integration.id, step)))

    async def advance_keys(self) -> int:
        """Takes every step of a rotation whose time has come, in all workspaces; returns how many rows changed."""
        now, changed = self._now(), 0

        def step(current: Integration) -> Changed | None:
            integration = advanced(current, now)
            return None if integration is None else (integration, {})

        for workspace, id in await self._registry.keys_due(now):
            try:
                changed += await self._writer.change(workspace, id, step) is not None
            except NotFound:
                continue  # deleted meanwhile
        return changed

    def _with_next(self, current: Integration, text: str, *, hold: bool, compromised: bool) -> Changed:
        auth, now = current.auth, self._now()
        if auth is None or auth.type not in KEY_TYPES:
            raise _refused(f"{current.name} doesn't sign with a key any more")
        jwk = self._public(auth, text)
        at_once = compromised or active_key(current) is None
        if next_key(current) is not None and not compromised:
            raise _refused("there is a next key already: wait until it signs, or confirm it")
        if any(k.kid == jwk["kid"] and not (at_once and k.state == "active") for k in current.published_keys):
            raise _refused("assertion_kid is fixed, so both keys would have the same kid: clear assertion_kid first")
        path = provisioned_path(self._prefix, current.workspace_id, current.id, "private_key")
        named = current.bindings.get(auth.private_key_ssm_param_path or "")
        # A key that takes over goes where the one before may go, and nowhere else (rules A1).
        binding = Binding(origins=named.origins if named is not None else origins_of(current), owned=True)
        fresh = PublishedKey(kid=jwk["kid"], jwk=jwk, state="next", path=path, since=now, hold=hold and not at_once)
        kept = tuple(k for k in current.published_keys if k.state != "next")
        changed = current.model_copy(
            update={"published_keys": (*kept, fresh), "bindings": {path: binding, **current.bindings}}
        )
        return (activated(changed, now, compromised=compromised) if at_once else changed), {path: text}

    def _public(self, auth: AuthConfig, text: str) -> dict[str, str]:
        jwk = public_of(auth, text)
        if jwk is None:
            raise InvalidRequest([Issue(("body", "alg"), fault.message) for fault in key_faults(auth, text)])
        return jwk

    def _told(self, integration: Integration) -> dict[str, Any]:
        where = f"{self._public_url}/v1/{integration.workspace_id}/integrations/{integration.id}/jwks.json"
        return {"integration": integration.name, "jwks_url": where, "keys": shown(integration)}

    # ------------------------------------------------------------------ tokens

    async def explain(self, caller: Caller, ref: str) -> dict[str, Any]:
        """The way to the credential, gone once (the auth X-ray)."""
        integration = await self._admin.get(caller, ref)
        if integration.auth is None:
            return {"integration": integration.name, "ok": True, "type": "none"}
        return {"integration": integration.name, **await xray(integration.auth, self._parts_of(integration))}

    async def discovery(self, caller: Caller, ref: str, confirm: str | None = None) -> dict[str, Any]:
        """The token endpoint that the FHIR server names now. `confirm`: an owner or admin has seen this very endpoint and
        takes it, from now on and also at another origin (rules A1, C6).
        """
        integration = await self._admin.get(caller, ref)
        auth = integration.auth
        if auth is None or auth.type != "smart_backend_services" or auth.token_url:
            raise _refused(f"{integration.name} doesn't discover its token endpoint")
        parts = self._parts_of(integration)
        found = parts.tokens.discovery
        if confirm is not None:
            integration = await self._to_change(caller, ref)
            if not caller.is_admin:
                raise Forbidden("only an owner or admin can confirm a token endpoint")
        found.forget(integration.workspace_id, integration.base_url)
        try:
            endpoint = (await found.find(parts.upstream, integration.workspace_id, integration.base_url)).token_endpoint
        except CallError as e:
            raise _refused(e.message) from None
        if confirm is None:
            return {"integration": integration.name, "token_endpoint": endpoint, "confirmed": False}
        if confirm != endpoint:
            raise _refused(f"the FHIR server names {endpoint}, not {confirm}: look again and confirm what it names")
        await found.pins.confirm(integration.workspace_id, integration.id, integration.base_url, endpoint)
        path = auth.private_key_ssm_param_path or ""

        def step(current: Integration) -> Changed | None:
            binding = current.bindings.get(path)
            if binding is None or origin_of(endpoint) in binding.origins:
                return None
            wider = binding.model_copy(update={"origins": tuple(sorted({*binding.origins, origin_of(endpoint)}))})
            return current.model_copy(update={"bindings": {**current.bindings, path: wider}}), {}

        await self._writer.change(integration.workspace_id, integration.id, step)
        parts.tokens.drop(integration.workspace_id, integration.id)
        return {"integration": integration.name, "token_endpoint": endpoint, "confirmed": True}

    async def _to_change(self, caller: Caller, ref: str) -> Integration:
        integration = await self._admin.get(caller, ref)
        caller.require("Integration.update")
        if caller.tools is not None:
            raise Forbidden("this key is narrowed to some tools, so it can't change integrations")
        if integration.builtin and caller.kind != "local":
            raise BuiltinReadOnly(f"{integration.name} belongs to the operator's file; its keys are the operator's too")
        return integration


def _after(written: Written | None) -> Integration:
    assert written is not None
    return written.after


def _refused(message: str) -> InvalidRequest:
    return InvalidRequest([Issue(("body", "auth"), message)])
