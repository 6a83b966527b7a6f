"""Keys that sign: made by the gateway, their states by the clock, and what may never be shown (rules A4, A9, C1, C4, D1, D2)."""

import json
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from server.config_file import parse_text
from server.config_plan import Planner
from tests.world import World, gateway
from tools.auth_admin import AuthAdmin
from tools.callers import ROLE_PERMISSIONS, Caller
from tools.errors import Forbidden, InvalidRequest, NotFound
from tools.jwks import generate_key, parse_private_key, private_jwk
from tools.models import Integration, PublishedKey
from tools.parsing import parse_update
from tools.signing_keys import NEXT_FOR, RETIRING_FOR, advanced, due, jwks

pytestmark = pytest.mark.anyio
PEM, PUBLIC = generate_key("ES384")
OTHER, OTHER_PUBLIC = generate_key("ES384")
MOMENT = timedelta(microseconds=1)


class Clock:
    """Ahead of the real one, so that the gateway's own housekeeping never finds a step of a rotation due."""

    def __init__(self) -> None:
        self.now = datetime(2126, 3, 1, 8, tzinfo=UTC)

    def __call__(self) -> datetime:
        return self.now


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    async with gateway(tmp_path) as made:
        yield made


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def keys(world: World, clock: Clock) -> AuthAdmin:
    app = world.app
    return AuthAdmin(app.admin, app.registry, app.writer, lambda _: pytest.fail("no token is needed here"), now=clock)


def smart(key: str = PEM, **auth: Any) -> dict[str, Any]:
    given = {"type": "smart_backend_services", "client_id": "me", "scopes": ["system/Patient.rs"]} | auth
    return {
        "name": "ehr",
        "display_name": "EHR",
        "base_url": "https://ehr.example.com/fhir",
        "auth": given | ({"private_key_value": {"value": key}} if key else {}),
    }


async def row(world: World, ref: str = "ehr") -> Integration:
    return await world.app.registry.get("acme", ref)


async def states(world: World) -> dict[str, str]:
    return {k.kid: k.state for k in (await row(world)).published_keys}


def member(permissions: Any = ROLE_PERMISSIONS["member"], **narrowed: Any) -> Caller:
    return Caller("k", "acme", role="member", permissions=permissions, **narrowed)


async def signing(world: World) -> str:
    """The kid of the key that a call made now would sign with."""
    integration = await row(world)
    assert integration.auth is not None
    path = integration.auth.private_key_ssm_param_path
    assert path is not None
    stored = await world.app.secrets.read(path, integration.bindings[path].version)
    parsed = parse_private_key(stored.value)
    return next(k.kid for k in integration.published_keys if parsed.kid in (None, k.kid) and k.state == "active")


# -- what is published


async def test_the_public_part_of_a_given_key_is_published_with_its_thumbprint(world: World) -> None:
    """Rules D1: exactly the members of the allow list."""
    await world.create(smart())
    (key,) = (await row(world)).published_keys
    assert key.jwk == PUBLIC
    assert set(key.jwk) == {"kty", "use", "alg", "kid", "crv", "x", "y"}
    assert (key.state, key.version) == ("active", (await row(world)).bindings[key.path].version)


@pytest.mark.parametrize(
    ("value", "alg"),
    [("generate", "RS384"), ("generate:ES384", "ES384"), ("generate:RS384", "RS384")],
)
async def test_generate_as_the_value_makes_the_key(world: World, value: str, alg: str) -> None:
    """Rules D2: null's default by type; a generated key says its algorithm and signs with nothing else."""
    created = await world.create(smart(value))
    (key,) = (await row(world)).published_keys
    stored = json.loads((await world.app.secrets.read(key.path, key.version)).value)
    assert (key.jwk["alg"], stored["alg"], stored["kid"]) == (alg, alg, key.kid)
    assert {"d"} <= set(stored)
    assert "d" not in key.jwk
    assert stored["d"] not in world.app.admin.shown(world.owner, created).model_dump_json()


@pytest.mark.parametrize("value", ["generate:HS256", "generate:ES256", "generated"])
async def test_a_key_that_can_t_sign_for_the_type_isn_t_made(world: World, value: str) -> None:
    """Rules C1: nothing is stored."""
    with pytest.raises(InvalidRequest):
        await world.create(smart(value))
    assert await world.app.secrets.paths("/gw") == []


async def test_a_key_that_is_only_named_is_published_too(world: World) -> None:
    """Rules D1: keys given by the operator."""
    await world.app.secrets.write("/team/ehr/key", PEM)
    await world.create(smart("", private_key_ssm_param_path="/team/ehr/key"))
    (key,) = (await row(world)).published_keys
    assert (key.jwk, key.version, key.path) == (PUBLIC, None, "/team/ehr/key")


async def test_a_named_key_that_isn_t_there_publishes_nothing(world: World) -> None:
    await world.create(smart("", private_key_ssm_param_path="/team/ehr/key"))
    assert (await row(world)).published_keys == ()


@pytest.mark.parametrize("change", [{"assertion_kid": "k-7"}, {"assertion_algorithm": "ES384"}])
async def test_what_changes_how_the_key_signs_changes_what_is_published(world: World, change: dict[str, Any]) -> None:
    await world.create(smart())
    asked = parse_update({"auth": smart("")["auth"] | change}, "ehr")
    after = (await world.app.admin.update(world.owner, "ehr", asked)).after
    active = [k for k in after.published_keys if k.state == "active"]
    assert [k.kid for k in active] == [change.get("assertion_kid", PUBLIC["kid"])]


async def test_a_key_that_is_replaced_stays_published_while_it_may_be_met(world: World) -> None:
    await world.create(smart())
    await world.app.admin.update(world.owner, "ehr", parse_update({"auth": smart(OTHER)["auth"]}, "ehr"))
    assert await states(world) == {PUBLIC["kid"]: "retiring", OTHER_PUBLIC["kid"]: "active"}


@pytest.mark.parametrize(("again", "made"), [("generate", 0), ("generate:ES384", 0), ("generate:RS384", 1), (OTHER, 1)])
async def test_generate_makes_a_key_only_where_there_is_none_of_the_algorithm(
    world: World, again: str, made: int
) -> None:
    """A file that says so can be applied again and again."""
    await world.create(smart("generate:ES384"))
    before = (await row(world)).published_keys
    await world.app.admin.update(world.owner, "ehr", parse_update({"auth": smart(again)["auth"]}, "ehr"))
    after = (await row(world)).published_keys
    assert len(after) == 1 + made
    assert (after == before) == (not made)


async def test_a_file_that_says_generate_is_applied_once(world: World) -> None:
    app = world.app
    planner = Planner(app.admin, app.registry, app.secrets, world.owner, tool_name_max=48)
    (entry,) = parse_text(json.dumps(smart("generate:ES384")), "a file", {})
    await planner.carry_out(await planner.plan([entry]))
    (step,) = (await planner.plan([entry])).steps
    assert step.action == "keep"


async def test_a_change_of_something_else_leaves_the_keys_alone(world: World) -> None:
    await world.create(smart())
    before = (await row(world)).published_keys
    await world.app.admin.update(world.owner, "ehr", parse_update({"enabled": False}, "ehr"))
    assert (await row(world)).published_keys == before


async def test_an_auth_without_a_key_retires_what_was_published(world: World) -> None:
    await world.create(smart())
    await world.app.admin.update(world.owner, "ehr", parse_update({"auth": None}, "ehr"))
    assert await states(world) == {PUBLIC["kid"]: "retiring"}


# -- rotation


async def test_a_rotation_by_the_clock(world: World, keys: AuthAdmin, clock: Clock) -> None:
    """Rules D2: next (published, not used), active, retiring, gone."""
    await world.create(smart())
    told = await keys.generate_key(world.owner, "ehr")
    fresh = next(k["kid"] for k in told["keys"] if k["state"] == "next")
    assert await states(world) == {PUBLIC["kid"]: "active", fresh: "next"}
    old = (await row(world)).bindings
    clock.now += NEXT_FOR - MOMENT
    assert await keys.advance_keys() == 0
    assert (await row(world)).bindings == old
    clock.now += MOMENT
    assert await keys.advance_keys() == 1
    assert await states(world) == {PUBLIC["kid"]: "retiring", fresh: "active"}
    assert await signing(world) == fresh
    clock.now += RETIRING_FOR - MOMENT
    assert await keys.advance_keys() == 0
    clock.now += MOMENT
    assert await keys.advance_keys() == 1
    assert await states(world) == {fresh: "active"}
    assert await keys.advance_keys() == 0


async def test_a_rotated_key_keeps_the_algorithm_unless_told(world: World, keys: AuthAdmin) -> None:
    """Rules D2: a key with one algorithm is never used for another."""
    await world.create(smart())
    told = await keys.generate_key(world.owner, "ehr", hold=True)
    assert {k["alg"] for k in told["keys"]} == {"ES384"}
    told = await keys.generate_key(world.owner, "ehr", "RS384", compromised=True)
    assert [k["alg"] for k in told["keys"]] == ["RS384"]


async def test_a_held_key_waits_for_its_confirmation_and_for_its_time(
    world: World, keys: AuthAdmin, clock: Clock
) -> None:
    """Rules D2, D3: where the JWKS is uploaded by hand."""
    await world.create(smart())
    await keys.generate_key(world.owner, "ehr", hold=True)
    clock.now += 10 * NEXT_FOR
    assert await keys.advance_keys() == 0
    assert sorted((await states(world)).values()) == ["active", "next"]
    await keys.confirm_key(world.owner, "ehr")
    assert sorted((await states(world)).values()) == ["active", "retiring"]
    with pytest.raises(InvalidRequest, match="waits for a confirmation"):
        await keys.confirm_key(world.owner, "ehr")


async def test_a_confirmation_before_its_time_only_ends_the_holding(
    world: World, keys: AuthAdmin, clock: Clock
) -> None:
    await world.create(smart())
    await keys.generate_key(world.owner, "ehr", hold=True)
    await keys.confirm_key(world.owner, "ehr")
    assert sorted((await states(world)).values()) == ["active", "next"]
    clock.now += NEXT_FOR
    assert await keys.advance_keys() == 1


async def test_a_compromised_key_is_unpublished_at_once(world: World, keys: AuthAdmin) -> None:
    """Rules D2."""
    await world.create(smart())
    await keys.generate_key(world.owner, "ehr")
    told = await keys.generate_key(world.owner, "ehr", compromised=True)
    (only,) = told["keys"]
    assert only["state"] == "active"
    assert PUBLIC["kid"] not in await states(world)
    assert await signing(world) == only["kid"]


async def test_the_private_part_of_a_new_key_is_in_no_answer(world: World, keys: AuthAdmin) -> None:
    await world.create(smart())
    told = json.dumps(await keys.generate_key(world.owner, "ehr"))
    key = next(k for k in (await row(world)).published_keys if k.state == "next")
    private = json.loads((await world.app.secrets.read(key.path, key.version)).value)
    assert private["d"] not in told
    assert private["d"] not in (await row(world)).model_dump_json()
    assert private["d"].encode() not in await keys.jwks(world.owner, "ehr")


async def test_an_update_meanwhile_keeps_the_next_key_and_its_secret(
    world: World, keys: AuthAdmin, clock: Clock
) -> None:
    """Rules A4: the sweeper takes only what no row refers to."""
    await world.create(smart())
    await keys.generate_key(world.owner, "ehr")
    await world.app.admin.update(world.owner, "ehr", parse_update({"display_name": "EHR 2"}, "ehr"))
    await world.app.registry.schedule_sweep([k.path for k in (await row(world)).published_keys], clock.now)
    await world.app.writer.sweep()
    clock.now += NEXT_FOR
    assert await keys.advance_keys() == 1
    await signing(world)


async def test_a_named_key_is_followed_by_one_of_our_own_that_goes_where_it_went(
    world: World, keys: AuthAdmin, clock: Clock
) -> None:
    """Rules A1, A9: the named secret stays where it is; the new one is bound to the same origins and owned."""
    await world.app.secrets.write("/team/ehr/key", PEM)
    created = await world.create(smart("", private_key_ssm_param_path="/team/ehr/key"))
    await keys.generate_key(world.owner, "ehr")
    assert set((await row(world)).bindings) == {"/team/ehr/key", f"/gw/acme/integrations/{created.id}/private_key"}
    clock.now += NEXT_FOR
    await keys.advance_keys()
    after = await row(world)
    assert after.auth is not None
    path = after.auth.private_key_ssm_param_path or ""
    assert (after.bindings[path].owned, after.bindings[path].origins) == (True, ("https://ehr.example.com:443",))
    assert (await world.app.secrets.read("/team/ehr/key")).value == PEM


async def test_two_rotations_at_once_make_one_next_key(world: World, keys: AuthAdmin) -> None:
    await world.create(smart())
    await keys.generate_key(world.owner, "ehr")
    with pytest.raises(InvalidRequest, match="next key already"):
        await keys.generate_key(world.owner, "ehr")
    key = (await row(world)).published_keys[0]
    assert len(await world.app.secrets.versions(key.path)) == 2


async def test_a_fixed_kid_can_t_name_two_keys(world: World, keys: AuthAdmin) -> None:
    """Rules D1: a kid is unique in the set."""
    await world.create(smart(assertion_kid="mine"))
    with pytest.raises(InvalidRequest, match="clear assertion_kid"):
        await keys.generate_key(world.owner, "ehr")


async def test_a_deleted_integration_takes_its_keys_along(world: World, keys: AuthAdmin) -> None:
    """Rules A9."""
    await world.create(smart())
    await keys.generate_key(world.owner, "ehr")
    (path,) = {k.path for k in (await row(world)).published_keys}
    await world.app.admin.delete(world.owner, "ehr")
    assert await world.app.registry.secret_versions(path) == set()
    assert path in await world.app.registry.due_sweeps(datetime.now(UTC) + timedelta(hours=1))


# -- who may


@pytest.mark.parametrize(
    ("caller", "refusal"),
    [
        (member(ROLE_PERMISSIONS["viewer"]), Forbidden),
        (member(ROLE_PERMISSIONS["operator"]), Forbidden),
        (member(ROLE_PERMISSIONS["agent"]), Forbidden),
        (member(integrations=frozenset({"another"})), NotFound),
        (Caller("k", "other", role="owner", permissions=ROLE_PERMISSIONS["owner"]), NotFound),
    ],
)
async def test_who_may_not_change_it_may_not_make_a_key(
    world: World, keys: AuthAdmin, caller: Caller, refusal: type[Exception]
) -> None:
    await world.create(smart())
    with pytest.raises(refusal):
        await keys.generate_key(caller, "ehr")
    assert len((await row(world)).published_keys) == 1


async def test_an_auth_that_doesn_t_sign_has_no_keys(world: World, keys: AuthAdmin) -> None:
    body = smart() | {"auth": {"type": "bearer_token", "bearer_token_value": {"value": "x" * 20}}}
    await world.create(body)
    with pytest.raises(InvalidRequest, match="doesn't sign"):
        await keys.generate_key(world.owner, "ehr")
    with pytest.raises(NotFound):
        await keys.jwks(world.owner, "ehr")


# -- pure


def published(state: Any, since: datetime, kid: str = "k", **more: Any) -> PublishedKey:
    return PublishedKey(kid=kid, jwk=PUBLIC | {"kid": kid}, state=state, path="/gw/acme/k", since=since, **more)


def holders() -> Iterator[tuple[tuple[PublishedKey, ...], timedelta | None]]:
    now = Clock().now
    yield (), None
    yield (published("active", now),), None
    yield (published("active", now), published("next", now, "n", hold=True)), None
    yield (published("active", now), published("next", now, "n")), NEXT_FOR
    yield (published("active", now), published("retiring", now, "r")), RETIRING_FOR
    yield (published("next", now, "n"), published("retiring", now, "r")), NEXT_FOR


@pytest.mark.parametrize(("keys", "wait"), list(holders()))
def test_a_row_is_due_exactly_when_advancing_does_something(
    keys: tuple[PublishedKey, ...], wait: timedelta | None
) -> None:
    now = Clock().now
    integration = Integration.model_validate(
        smart("", private_key_ssm_param_path="/gw/acme/k")
        | {"id": "i", "workspace_id": "acme", "created_at": now, "updated_at": now, "published_keys": keys}
    )
    assert due(integration) == (None if wait is None else now + wait)
    if wait is None:
        assert advanced(integration, now + timedelta(days=9999)) is None
    else:
        assert advanced(integration, now + wait - MOMENT) is None
        assert advanced(integration, now + wait) is not None


def test_the_document_doesn_t_depend_on_the_order_of_writing() -> None:
    now = Clock().now
    keys = [published("next", now, "n"), published("active", now, "z"), published("retiring", now, "a")]
    assert jwks(keys) == jwks(keys[::-1])
    assert [k["kid"] for k in json.loads(jwks(keys))["keys"]] == ["z", "n", "a"]


@pytest.mark.parametrize("alg", ["RS256", "ES256"])
def test_a_generated_jwk_reads_as_the_key_it_was_made_from(alg: Any) -> None:
    pem, public = generate_key(alg)
    for prove in (True, False):
        parsed = parse_private_key(private_jwk(pem, public), prove=prove)
        assert parsed.key.private_numbers() == parse_private_key(pem).key.private_numbers()
        assert (parsed.alg, parsed.kid) == (alg, public["kid"])
