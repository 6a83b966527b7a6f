"""Stored secrets as headers, and the reader between them and the store (rules A5, A6)."""

import asyncio
import base64
import json
import re
from collections.abc import AsyncIterator
from urllib.parse import quote, quote_plus

import pytest
from oauth_servers.world import BASE, Secrets, World, a_world

from tools.credentials.authorization import masks_of
from tools.credentials.reader import SecretReader
from tools.errors import CredentialUnavailable, Misconfigured, SecretStoreUnavailable, StorageUnavailable
from tools.masking import Masker
from tools.models import AuthConfig
from tools.secrets import Secret
from tools.upstream import Answer

pytestmark = pytest.mark.anyio
PATH = "/gw/acme/key"
KEY = AuthConfig(type="api_key_header", ssm_param_path=PATH)
BEARER = AuthConfig(type="bearer_token", token_ssm_param_path=PATH)
REFUSED = Answer(401, {}, b"", BASE)


@pytest.fixture
async def world() -> AsyncIterator[World]:
    async with a_world({PATH: "first-value"}) as made:
        yield made


@pytest.mark.parametrize(
    ("auth", "header", "value"),
    [
        (KEY, "X-API-Key", "first-value"),
        (KEY.model_copy(update={"header_name": "X-Other"}), "X-Other", "first-value"),
        (BEARER, "Authorization", "Bearer first-value"),
    ],
)
async def test_a_secret_goes_out_in_its_header(world: World, auth: AuthConfig, header: str, value: str) -> None:
    made = await world.credential(auth).authorize()
    assert (made.header, made.value) == (header, value)
    assert "first-value" in made.masks
    assert "first-value" not in f"{made!r} {made.explain} {world.credential(auth).explain()}"


@pytest.mark.parametrize("value", ["a\r\nX-Evil: 1", "a\x00b", "schlüssel", "a\tb"])
async def test_a_secret_that_cannot_be_a_header_is_never_sent(world: World, value: str) -> None:
    await world.secrets.write(PATH, value)
    with pytest.raises(Misconfigured, match=PATH) as failure:
        await world.credential(KEY).authorize()
    assert value not in str(failure.value)


async def test_a_missing_secret_says_how_to_store_it(world: World) -> None:
    with pytest.raises(CredentialUnavailable, match="/gw/acme/none") as failure:
        await world.credential(KEY.model_copy(update={"ssm_param_path": "/gw/acme/none"})).authorize()
    assert "secrets set /gw/acme/none" in (failure.value.advice or "")


async def test_a_thousand_calls_read_a_secret_once(world: World) -> None:
    credential = world.credential(KEY)
    await asyncio.gather(*(credential.authorize() for _ in range(1000)))
    assert world.secrets.reads[PATH] == 1


async def test_a_401_reads_past_the_cache_once_a_minute(world: World) -> None:
    """Rules A5: unchanged, no second try."""
    credential = world.credential(KEY)
    used = await credential.authorize()
    for _ in range(50):
        assert not await credential.rejected(used, REFUSED)
    assert world.secrets.reads[PATH] == 2
    world.clock.now += 61
    assert not await credential.rejected(used, REFUSED)
    assert world.secrets.reads[PATH] == 3


async def test_a_401_with_a_changed_secret_is_worth_one_more_try_for_every_caller(world: World) -> None:
    """Rules A5."""
    credential = world.credential(KEY)
    used = await credential.authorize()
    await world.secrets.write(PATH, "second-value")
    assert await asyncio.gather(*(credential.rejected(used, REFUSED) for _ in range(20))) == [True] * 20
    assert (await credential.authorize()).value == "second-value"
    assert world.secrets.reads[PATH] == 2


async def test_a_pinned_secret_is_read_at_its_version_and_never_again(world: World) -> None:
    """Rules A4: one consistent pair of config and secret."""
    await world.secrets.write(PATH, "second-value")
    credential = world.credential(KEY, world.parts(versions={PATH: "1"}))
    used = await credential.authorize()
    assert used.value == "first-value"
    assert not await credential.rejected(used, REFUSED)
    world.clock.now += 10_000
    await credential.authorize()
    assert world.secrets.reads[PATH] == 1


class Failing(Secrets):
    down = False

    async def read(self, path: str, version: str | None = None) -> Secret:
        secret = await super().read(path, version)
        if self.down:
            raise SecretStoreUnavailable("the store is out")
        return secret


async def test_a_store_outage_leaves_cached_secrets_and_is_said_for_others() -> None:
    """Cached secrets go on; a new one fails with a clear error."""
    store, now = Failing({PATH: "first-value", "/gw/acme/new": "x"}), [0.0]
    reader = SecretReader(store, clock=lambda: now[0])
    await reader.read(PATH, None)
    store.down, now[0] = True, 3600.0
    assert (await reader.read(PATH, None)).value == "first-value"
    assert await reader.reread(PATH, "1") is None
    with pytest.raises(CredentialUnavailable, match="can't be reached"):
        await reader.read("/gw/acme/new", None)


class Hanging(Secrets):
    """Answers when the test lets it."""

    def __init__(self, kept: dict[str, str]) -> None:
        super().__init__(kept)
        self.answers, self.began, self.asked = asyncio.Event(), asyncio.Event(), 0
        self.answers.set()

    async def read(self, path: str, version: str | None = None) -> Secret:
        self.asked += 1
        self.began.set()
        await self.answers.wait()
        return await super().read(path, version)


async def test_a_store_that_hangs_costs_known_secrets_one_wait_and_the_next_read_brings_the_new_value() -> None:
    store, now = Hanging({PATH: "first-value"}), [0.0]
    reader = SecretReader(store, patience_s=0.01, clock=lambda: now[0])
    await reader.read(PATH)
    store.answers.clear()
    now[0] = 61.0
    for _ in range(3):  # the first waits, the others don't even ask
        assert (await reader.read(PATH)).value == "first-value"
    assert await asyncio.gather(*(reader.reread(PATH, "1") for _ in range(100))) == [None] * 100
    assert store.asked == 2
    now[0] = 67.0
    assert (await reader.read(PATH)).value == "first-value"
    assert store.asked == 2  # that read is still under way
    await store.write(PATH, "second-value")
    store.answers.set()
    now[0] = 73.0
    assert (await reader.read(PATH)).value == "second-value"
    await reader.aclose()


async def test_an_unknown_secret_of_a_store_that_hangs_is_told_to_all_who_wait_and_one_read_is_made() -> None:
    store = Hanging({PATH: "first-value"})
    store.answers.clear()
    reader = SecretReader(store, wait_s=0.01)
    told = await asyncio.gather(*(reader.read(PATH) for _ in range(100)), return_exceptions=True)
    assert {str(t) for t in told} == {"the secret store can't be reached (it doesn't answer)"}
    assert store.asked == 1
    store.answers.set()
    assert (await reader.read(PATH)).value == "first-value"
    await reader.aclose()


async def test_a_value_that_was_replaced_while_it_was_read_is_not_kept() -> None:
    store = Hanging({PATH: "first-value"})
    store.answers.clear()
    reader = SecretReader(store)
    first = asyncio.create_task(reader.read(PATH))
    await store.began.wait()
    reader.forget(PATH)
    store.answers.set()
    await first
    await store.write(PATH, "second-value")
    assert (await reader.read(PATH)).value == "second-value"


async def test_a_registry_that_is_gone_leaves_cached_secrets_as_a_store_does() -> None:
    """The local store is in it."""

    class Gone(Secrets):
        down = False

        async def read(self, path: str, version: str | None = None) -> Secret:
            if self.down:
                raise StorageUnavailable("the registry can't be reached")
            return await super().read(path, version)

    store, now = Gone({PATH: "first-value"}), [0.0]
    reader = SecretReader(store, clock=lambda: now[0])
    await reader.read(PATH)
    store.down, now[0] = True, 61.0
    assert (await reader.read(PATH)).value == "first-value"
    with pytest.raises(CredentialUnavailable, match="can't be reached"):
        await reader.read("/gw/acme/other")


@pytest.mark.parametrize(
    "value", ["päss:w+o rd/%", 'quo"te\\back/slash', "-----BEGIN X-----\nAAAA\nBBBB\n-----END X-----"]
)
def test_every_spelling_of_a_secret_is_masked(value: str) -> None:
    """Rules A6, I1: literal, base64 of id:secret, percent-encoded in both cases, form-encoded, JSON-escaped."""
    mask = Masker(masks_of([value]))
    lower = re.sub("%..", lambda m: m[0].lower(), quote(value, safe=""))
    for spelling in (
        value,
        quote(value, safe=""),
        lower,
        quote_plus(value),
        json.dumps(value, ensure_ascii=False)[1:-1],
    ):
        assert mask.text(f"<{spelling}>") == "<[secret]>"
    for lead in ("", "a", "ab", "id:"):
        shown = base64.b64encode(f"{lead}{value}".encode()).decode()
        assert mask.text(shown) != shown
