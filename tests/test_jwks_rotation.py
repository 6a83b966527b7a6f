"""A rotation seen by those who verify: nobody is ever shown a signature by a key that he can't know (rules D2, I8)."""

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jwt
import pytest
from oauth_servers.running import free_port
from oauth_servers.sekmet import sekmet

from tests.test_signing_keys import Clock, smart
from tests.world import World, gateway, served
from tools.auth_admin import AuthAdmin
from tools.credentials.keys import read_signing_key
from tools.signing_keys import LAST_SIGNATURE, MAX_AGE, NEXT_FOR, RETIRING_FOR

pytestmark = pytest.mark.anyio
STEP = timedelta(seconds=50)


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with gateway(tmp_path) as made:
        yield made


def admin_of(world: World, clock: Clock) -> AuthAdmin:
    app = world.app
    return AuthAdmin(app.admin, app.registry, app.writer, lambda _: pytest.fail("not needed"), now=clock)


class Verifier:
    """The strictest there is: it looks at the JWKS only when its copy is older than max-age, never because of an unknown kid."""

    def __init__(self, phase: timedelta) -> None:
        self._phase = phase
        self._fetched: datetime | None = None
        self._keys: dict[str, Any] = {}

    async def accepts(self, admin: AuthAdmin, world: World, assertion: str, now: datetime) -> bool:
        if self._fetched is None or now - self._fetched >= MAX_AGE:
            self._fetched = now - (self._phase if self._fetched is None else timedelta(0))
            document = jwt.PyJWKSet.from_json((await admin.jwks(world.owner, "ehr")).decode())
            self._keys = {key.key_id or "": key for key in document.keys}
        key = self._keys.get(jwt.get_unverified_header(assertion)["kid"])
        if key is None:
            return False
        jwt.decode(assertion, key, algorithms=["ES384"])
        return True


async def signature(world: World) -> str:
    """By the key that a call made now would use."""
    integration = await world.app.registry.get("acme", "ehr")
    assert integration.auth is not None
    path = integration.auth.private_key_ssm_param_path or ""
    secret = await world.app.secrets.read(path, integration.bindings[path].version)
    key = read_signing_key(integration.auth, secret.value)
    return jwt.encode({"iss": "me"}, key.key, algorithm=key.alg, headers={"kid": key.kid})


async def refusals(world: World, *, compromised: bool) -> int:
    """How many signatures were refused in an hour around a rotation, by verifiers that look at different moments.

    Also shown at each moment: what a call signs now that began as long ago as a call can.
    """
    clock = Clock()
    admin = admin_of(world, clock)
    await world.create(smart("generate:ES384"))
    verifiers = [Verifier(STEP * n) for n in range(int(MAX_AGE / STEP))]
    ends = clock.now + timedelta(minutes=10) + NEXT_FOR + RETIRING_FOR + timedelta(minutes=10)
    begun: list[tuple[datetime, str]] = []
    refused, steps = 0, 0
    while clock.now < ends:
        if steps == 12:
            await admin.generate_key(world.owner, "ehr", compromised=compromised)
        await admin.advance_keys()
        begun.append((clock.now, await signature(world)))
        begun = [(at, made) for at, made in begun if clock.now - at <= LAST_SIGNATURE]
        for assertion in {begun[0][1], begun[-1][1]}:
            for verifier in verifiers:
                refused += not await verifier.accepts(admin, world, assertion, clock.now)
        clock.now += STEP
        steps += 1
    assert len((await admin.keys(world.owner, "ehr"))["keys"]) == 1
    return refused


async def test_no_verifier_that_keeps_the_set_for_its_max_age_refuses_anything(world: World) -> None:
    assert await refusals(world, compromised=False) == 0


async def test_the_same_verifiers_do_refuse_where_the_old_key_ends_at_once(world: World) -> None:
    """What shows that the test above can fail, and what `--compromised` costs."""
    assert await refusals(world, compromised=True) > 0


@pytest.mark.slow
async def test_a_rotation_under_load_fails_no_call_at_a_server_that_keeps_our_jwks(
    world: World, tmp_path: Path
) -> None:
    """Rules D2, I8: sekmet fetches our published JWKS by HTTP and keeps it 300 s; every call here mints anew."""
    clock, port = Clock(), free_port()
    admin = admin_of(world, clock)
    body = smart("generate:ES384", client_id="gw") | {
        "base_url": f"http://127.0.0.1:{port}/fhir",
        "endpoints": [{"name": "search", "description": "Finds patients.", "method": "GET", "path": "/Patient"}],
    }
    made = await world.create(body)
    await admin.generate_key(world.owner, "ehr")
    tokens = world.app.auth_admin._parts_of(made).tokens
    async with served(world) as url:
        jwks_url = f"{url}/v1/acme/integrations/{made.id}/jwks.json"
        client = {"client_id": "gw", "jwks_url": jwks_url, "scopes": "system/Patient.rs"}
        with sekmet(tmp_path, port, [client]):
            seen: list[str] = []
            done, called = asyncio.Event(), asyncio.Semaphore(0)

            async def caller() -> None:
                while not done.is_set():
                    tokens.drop("acme", made.id)
                    seen.append(await world.call("ehr_search"))
                    called.release()

            async def twenty_calls() -> None:
                for _ in range(20):
                    await called.acquire()

            async with asyncio.timeout(60):
                workers = [asyncio.ensure_future(caller()) for _ in range(4)]
                await twenty_calls()
                clock.now += NEXT_FOR
                assert await admin.advance_keys() == 1
                await twenty_calls()
                way = await world.app.auth_admin.explain(world.owner, "ehr")
                done.set()
                await asyncio.gather(*workers)
    assert [text[:200] for text in seen if '"Bundle"' not in text] == []
    told = (await admin.keys(world.owner, "ehr"))["keys"]
    assert [k["state"] for k in told] == ["active", "retiring"]
    assert way["assertion"]["header"]["kid"] == told[0]["kid"]
