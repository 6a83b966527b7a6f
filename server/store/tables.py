"""The tables, one set for SQLite and PostgreSQL. `migrations/` makes them; a test holds the two together.

Text that is sorted or compared has the collation "C" on PostgreSQL, which is what SQLite does by itself: the same order on both.
JSON is kept as text, because key order in a schema is part of what agents see and JSONB would lose it.
"""

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    Float,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
    TypeDecorator,
    UniqueConstraint,
)


class Instant(TypeDecorator[datetime]):
    """A moment: timezone-aware going in, UTC coming out, microseconds kept."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        if value.tzinfo is None:
            raise ValueError("a moment without a time zone can't be stored")
        return value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


NUMBER = BigInteger().with_variant(Integer, "sqlite")
"""A row number that the database gives: SQLite does so only for its own INTEGER."""
KEY = Text().with_variant(Text(collation="C"), "postgresql")

metadata = MetaData()

counters = Table(
    "counters",
    metadata,
    Column("name", KEY, primary_key=True),
    Column("value", BigInteger, nullable=False),
)
"""`registry`, `keys` and `calls` (background ones): raised by every write of theirs; what other processes watch."""

workspaces = Table(
    "workspaces",
    metadata,
    Column("key", KEY, primary_key=True),  # the id in lower case
    Column("id", KEY, nullable=False),  # as first written
    Column("version", BigInteger, nullable=False),
    Column("changed", BigInteger, nullable=False),  # the registry counter at the last raise of the version
)
Index("workspaces_changed", workspaces.c.changed)

integrations = Table(
    "integrations",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("workspace", KEY, ForeignKey("workspaces.key"), nullable=False),
    Column("name", KEY, nullable=False),
    Column("display_key", KEY, nullable=False),  # display_name case-folded: what is sorted by and searched
    Column("protocol", KEY, nullable=False),
    Column("enabled", Boolean, nullable=False),
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
    Column("version", BigInteger, nullable=False),
    Column("last_tested_at", Instant),
    Column("last_test_status", Text),
    Column("keys_due", Instant),  # when a signing key's state changes by itself; null: never
    # Last, so that SQLite scans the other columns without reading the pages that a long document overflows to.
    Column("document", Text, nullable=False),
    UniqueConstraint("workspace", "name", name="integrations_name"),
)
Index("integrations_newest", integrations.c.workspace, integrations.c.created_at, integrations.c.id)
Index("integrations_keys_due", integrations.c.keys_due)

upstream_tools = Table(
    "upstream_tools",
    metadata,
    Column("integration", KEY, ForeignKey("integrations.id", ondelete="CASCADE"), primary_key=True),
    Column("document", Text, nullable=False),  # models.UpstreamTools
)
"""What MCP upstreams show, beside the integration and not in it: it changes without a write of anybody's."""

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("workspace", KEY, ForeignKey("workspaces.key"), nullable=False),
    Column("name", Text, nullable=False),
    Column("role", KEY, nullable=False),
    Column("permissions", Text, nullable=False),  # JSON array
    Column("hash", LargeBinary, nullable=False, unique=True),
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant),
    Column("integrations", Text),  # JSON array or null
    Column("tools", Text),  # JSON array or null
    Column("last_used_at", Instant),
)
Index("api_keys_newest", api_keys.c.workspace, api_keys.c.created_at, api_keys.c.id)

secret_references = Table(
    "secret_references",
    metadata,
    Column("path", KEY, primary_key=True),
    Column("integration", KEY, ForeignKey("integrations.id", ondelete="CASCADE"), primary_key=True),
    Column("version", KEY, primary_key=True),  # empty: the newest
)
Index("secret_references_integration", secret_references.c.integration)

discovery_pins = Table(
    "discovery_pins",
    metadata,
    Column("integration", KEY, ForeignKey("integrations.id", ondelete="CASCADE"), primary_key=True),
    Column("base_url", KEY, primary_key=True),
    Column("endpoint", Text, nullable=False),
)

secret_sweeps = Table(
    "secret_sweeps",
    metadata,
    Column("path", KEY, primary_key=True),
    Column("due", Instant, nullable=False),
)

secret_records = Table(
    "secret_records",
    metadata,
    Column("path", KEY, primary_key=True),
    Column("workspace", KEY, ForeignKey("workspaces.key")),  # null: the operator's own
    Column("origins", Text, nullable=False),  # JSON array
    Column("created_at", Instant, nullable=False),
    Column("updated_at", Instant, nullable=False),
)

kept_results = Table(
    "kept_results",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("sealed", LargeBinary, nullable=False),  # nonce and ciphertext
    Column("expires_at", Instant, nullable=False),
)
Index("kept_results_expired", kept_results.c.expires_at)

idempotency_keys = Table(
    "idempotency_keys",
    metadata,
    Column("key", KEY, primary_key=True),  # SHA-256 of caller, tool and the caller's key
    Column("arguments", KEY, nullable=False),  # SHA-256
    Column("expires_at", Instant, nullable=False),
)
Index("idempotency_keys_expired", idempotency_keys.c.expires_at)

approvals = Table(
    "approvals",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("workspace", KEY, nullable=False),  # in lower case
    Column("caller", KEY, nullable=False),
    Column("bound", KEY, nullable=False, unique=True),  # SHA-256 of caller, version, tool and arguments
    Column("state", KEY, nullable=False),  # waiting, approved, denied
    Column("created_at", Instant, nullable=False),
    Column("expires_at", Instant, nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # nonce and ciphertext: what is asked for
)
Index("approvals_expired", approvals.c.expires_at)
Index("approvals_newest", approvals.c.workspace, approvals.c.created_at)

tool_names = Table(
    "tool_names",
    metadata,
    Column("workspace", KEY, ForeignKey("workspaces.key"), primary_key=True),
    Column("name", KEY, primary_key=True),  # in lower case: two tools never differ by case alone
    Column("integration", KEY, ForeignKey("integrations.id", ondelete="CASCADE"), nullable=False),
    Column("endpoint", KEY, nullable=False),
)
"""The tools of each integration, enabled or not, kept by its own writes: what makes names unique among concurrent writers."""
Index("tool_names_integration", tool_names.c.integration)

secret_values = Table(
    "secret_values",
    metadata,
    Column("path", KEY, primary_key=True),
    Column("version", KEY, primary_key=True),  # ordered by time
    Column("key_id", KEY, nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # nonce and ciphertext, never in clear
    Column("created_at", Instant, nullable=False),
)

calls = Table(
    "calls",
    metadata,
    Column("seq", NUMBER, primary_key=True, autoincrement=True),
    Column("at", Instant, nullable=False),
    Column("workspace", KEY, nullable=False),  # in lower case; no foreign key: history outlives what it tells of
    Column("caller", KEY, nullable=False),
    Column("caller_kind", KEY, nullable=False),
    Column("call_id", KEY, nullable=False),
    Column("tool", KEY, nullable=False),
    Column("integration", KEY),
    Column("status", Integer),
    Column("error_code", KEY),
    Column("ms", Float, nullable=False),
    Column("attempts", Integer, nullable=False),
    Column("bytes", BigInteger, nullable=False),
    Column("arguments", Text),  # JSON object; null unless the operator opted in
    Column("request_id", KEY),  # null where no HTTP request brought it
)
Index("calls_newest", calls.c.workspace, calls.c.seq)
Index("calls_oldest", calls.c.at)

audit = Table(
    "audit",
    metadata,
    Column("seq", NUMBER, primary_key=True, autoincrement=True),
    Column("at", Instant, nullable=False),
    Column("workspace", KEY, nullable=False),
    Column("caller", KEY, nullable=False),
    Column("caller_kind", KEY, nullable=False),
    Column("action", KEY, nullable=False),
    Column("kind", KEY, nullable=False),
    Column("target", KEY, nullable=False),
    Column("name", Text, nullable=False),
    Column("changes", Text, nullable=False),  # JSON array
)
Index("audit_newest", audit.c.workspace, audit.c.seq)
Index("audit_oldest", audit.c.at)

background_calls = Table(
    "background_calls",
    metadata,
    Column("id", KEY, primary_key=True),
    Column("workspace", KEY, nullable=False),  # in lower case
    Column("workspace_id", KEY, nullable=False),  # as the caller has it
    Column("caller", KEY, nullable=False),
    Column("tool", KEY, nullable=False),
    Column("integration", KEY, nullable=False),
    Column("version", BigInteger, nullable=False),  # of the integration, when the call was accepted
    Column("same", KEY),  # null once the call has ended
    Column("given", KEY),
    Column("wanted", KEY, nullable=False),
    Column("state", KEY, nullable=False),
    Column("owner", KEY),  # the process that runs it
    Column("lease_until", Instant),
    Column("attempts", Integer, nullable=False),
    Column("progress", Float),
    Column("error_code", KEY),
    Column("accepted_at", Instant, nullable=False),
    Column("started_at", Instant),
    Column("ended_at", Instant),
    Column("expires_at", Instant, nullable=False),
    Column("key_id", KEY, nullable=False),
    Column("sealed", LargeBinary, nullable=False),  # arguments, caller, key: nonce and ciphertext
    Column("result", LargeBinary),
    Column("request_id", KEY),  # null where no HTTP request brought it
    UniqueConstraint("same", name="background_calls_same"),
    UniqueConstraint("given", name="background_calls_given"),
)
"""Calls of queue endpoints. What the columns mean: `tools.background.BackgroundCall`."""
Index("background_calls_waiting", background_calls.c.state, background_calls.c.accepted_at)
Index("background_calls_newest", background_calls.c.workspace, background_calls.c.accepted_at)
Index("background_calls_expired", background_calls.c.expires_at)
