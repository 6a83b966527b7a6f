"""`tools.registry.Registry` in SQL: what integrations.py and secrets.py hold, on one database."""

from server.store.integrations import IntegrationRows
from server.store.secrets import SecretRows


class SqlRegistry(IntegrationRows, SecretRows):
    """Integrations by workspace, with the bookkeeping of their secrets."""
