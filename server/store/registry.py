"""`tools.registry.Registry` in SQL: what integrations.py, secrets.py and tool_names.py hold, on one database."""

from server.store.integrations import IntegrationRows
from server.store.secrets import SecretRows
from server.store.tool_names import ToolNameRows


class SqlRegistry(IntegrationRows, SecretRows, ToolNameRows):
    """Integrations by workspace, with the bookkeeping of their secrets."""
