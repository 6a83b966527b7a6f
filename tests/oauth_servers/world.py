"""What a credential needs in a test: a clock that only we move, secrets in memory, real connections to loopback."""

import asyncio
import time
from collections import Counter
from collections.abc import AsyncIterator, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from tools.address_guard import NetworkPolicy
from tools.credentials import Credential
from tools.credentials.parts import CredentialParts, GoogleEndpoints
from tools.credentials.reader import SecretReader
from tools.credentials.timing import Timing
from tools.credentials.token_cache import TokenCache
from tools.credentials.types import TYPES
from tools.errors import SecretNotFound
from tools.models import AuthConfig
from tools.secrets import Secret
from tools.upstream import Upstream

LOOPBACK = NetworkPolicy(allow_private=True)
BASE = "https://api.example.com"


class Clock:
    """Moved by the test alone; waiting on it moves it. Wall time begins at the real one, since real servers compare."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.wall_offset = time.time() - self.now
        self.chance = 0.0
        self.waits: list[float] = []

    async def sleep(self, seconds: float) -> None:
        self.waits.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)

    def timing(self) -> Timing:
        return Timing(lambda: self.now, lambda: self.now + self.wall_offset, self.sleep, lambda: self.chance)


class Secrets:
    """A SecretStore in memory that counts its reads."""

    def __init__(self, values: Mapping[str, str] | None = None) -> None:
        self.values: dict[str, list[str]] = {path: [value] for path, value in (values or {}).items()}
        self.reads: Counter[str] = Counter()

    async def read(self, path: str, version: str | None = None) -> Secret:
        self.reads[path] += 1
        await asyncio.sleep(0)  # a store is never as fast as a dict: others run meanwhile
        versions = self.values.get(path)
        if not versions:
            raise SecretNotFound(path)
        number = int(version) if version else len(versions)
        return Secret(versions[number - 1], str(number))

    async def write(self, path: str, value: str) -> str:
        self.values.setdefault(path, []).append(value)
        return str(len(self.values[path]))

    async def remove(self, path: str, versions: Collection[str]) -> None:
        self.values.pop(path, None)

    async def paths(self, prefix: str) -> list[str]:
        return sorted(self.values)


@dataclass
class World:
    """One gateway process as far as credentials see it."""

    clock: Clock
    secrets: Secrets
    reader: SecretReader
    upstream: Upstream
    tokens: TokenCache
    google: GoogleEndpoints = field(default_factory=GoogleEndpoints)

    def parts(self, workspace: str = "acme", integration_id: str = "i-1", **more: Any) -> CredentialParts:
        given: dict[str, Any] = {"network": LOOPBACK, "base_url": BASE, "google": self.google} | more
        return CredentialParts(
            reader=self.reader,
            upstream=self.upstream,
            tokens=self.tokens,
            workspace=workspace,
            integration_id=integration_id,
            **given,
        )

    def credential(self, auth: AuthConfig, parts: CredentialParts | None = None) -> Credential:
        return TYPES[auth.type].make(auth, parts or self.parts())


@asynccontextmanager
async def a_world(secrets: Mapping[str, str] | None = None, network: NetworkPolicy = LOOPBACK) -> AsyncIterator[World]:
    clock, store = Clock(), Secrets(secrets)
    timing = clock.timing()
    reader = SecretReader(store, clock=timing.monotonic)
    upstream = Upstream(network)
    tokens = TokenCache(timing)
    try:
        yield World(clock, store, reader, upstream, tokens)
    finally:
        await tokens.aclose()
        await upstream.aclose()
