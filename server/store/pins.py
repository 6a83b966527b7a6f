"""The token endpoints that FHIR servers first led to, kept in the registry (rules C6)."""

from sqlalchemy import select

from server.store.database import Database
from server.store.tables import discovery_pins
from tools.errors import CredentialUnavailable, StorageUnavailable


class SqlPins:
    """`tools.credentials.smart_discovery.Pins`. What this process has read once goes on through an outage of the registry."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self._known: dict[tuple[str, str], str] = {}

    async def pin(self, workspace: str, integration_id: str, base_url: str, endpoint: str) -> str:
        key = (integration_id, base_url)
        if self._known.get(key) == endpoint:
            return endpoint
        try:
            pinned = await self._pinned(integration_id, base_url, endpoint)
        except StorageUnavailable as e:
            raise CredentialUnavailable(
                f"the registry can't be asked which token endpoint is the right one: {e.message}",
                advice="try again in a minute",
            ) from None
        if len(self._known) >= 10_000:
            self._known.clear()
        self._known[key] = pinned
        return pinned

    async def confirm(self, workspace: str, integration_id: str, base_url: str, endpoint: str) -> None:
        row = self._database.insert(discovery_pins).values(
            integration=integration_id, base_url=base_url, endpoint=endpoint
        )
        async with self._database.write() as connection:
            await connection.execute(
                row.on_conflict_do_update(index_elements=["integration", "base_url"], set_={"endpoint": endpoint})
            )
        self._known[integration_id, base_url] = endpoint

    async def _pinned(self, integration_id: str, base_url: str, endpoint: str) -> str:
        kept = select(discovery_pins.c.endpoint).where(
            discovery_pins.c.integration == integration_id, discovery_pins.c.base_url == base_url
        )
        async with self._database.read() as connection:
            known = (await connection.execute(kept)).scalar()
        if known is not None:
            return known
        row = self._database.insert(discovery_pins).values(
            integration=integration_id, base_url=base_url, endpoint=endpoint
        )
        async with self._database.write() as connection:
            await connection.execute(row.on_conflict_do_nothing(index_elements=["integration", "base_url"]))
            return (await connection.execute(kept)).scalar_one()
