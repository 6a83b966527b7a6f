"""The first schema."""

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    instant = sa.DateTime(timezone=True)
    number = sa.BigInteger().with_variant(sa.Integer, "sqlite")

    counters = op.create_table(
        "counters",
        sa.Column("name", key, primary_key=True),
        sa.Column("value", sa.BigInteger, nullable=False),
    )
    op.bulk_insert(counters, [{"name": "registry", "value": 0}, {"name": "keys", "value": 0}])

    op.create_table(
        "workspaces",
        sa.Column("key", key, primary_key=True),
        sa.Column("id", key, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("changed", sa.BigInteger, nullable=False),
    )
    op.create_index("workspaces_changed", "workspaces", ["changed"])

    op.create_table(
        "integrations",
        sa.Column("id", key, primary_key=True),
        sa.Column("workspace", key, sa.ForeignKey("workspaces.key"), nullable=False),
        sa.Column("name", key, nullable=False),
        sa.Column("display_key", key, nullable=False),
        sa.Column("protocol", key, nullable=False),
        sa.Column("enabled", sa.Boolean, nullable=False),
        sa.Column("created_at", instant, nullable=False),
        sa.Column("updated_at", instant, nullable=False),
        sa.Column("version", sa.BigInteger, nullable=False),
        sa.Column("last_tested_at", instant),
        sa.Column("last_test_status", sa.Text),
        sa.Column("keys_due", instant),
        sa.Column("document", sa.Text, nullable=False),
        sa.UniqueConstraint("workspace", "name", name="integrations_name"),
    )
    op.create_index("integrations_newest", "integrations", ["workspace", "created_at", "id"])
    op.create_index("integrations_keys_due", "integrations", ["keys_due"])

    op.create_table(
        "upstream_tools",
        sa.Column("integration", key, sa.ForeignKey("integrations.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("document", sa.Text, nullable=False),
    )

    op.create_table(
        "api_keys",
        sa.Column("id", key, primary_key=True),
        sa.Column("workspace", key, sa.ForeignKey("workspaces.key"), nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("role", key, nullable=False),
        sa.Column("permissions", sa.Text, nullable=False),
        sa.Column("hash", sa.LargeBinary, nullable=False, unique=True),
        sa.Column("created_at", instant, nullable=False),
        sa.Column("expires_at", instant),
        sa.Column("integrations", sa.Text),
        sa.Column("tools", sa.Text),
        sa.Column("last_used_at", instant),
    )
    op.create_index("api_keys_newest", "api_keys", ["workspace", "created_at", "id"])

    op.create_table(
        "secret_references",
        sa.Column("path", key, primary_key=True),
        sa.Column("integration", key, sa.ForeignKey("integrations.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("version", key, primary_key=True),
    )
    op.create_index("secret_references_integration", "secret_references", ["integration"])

    op.create_table(
        "discovery_pins",
        sa.Column("integration", key, sa.ForeignKey("integrations.id", ondelete="CASCADE"), primary_key=True),
        sa.Column("base_url", key, primary_key=True),
        sa.Column("endpoint", sa.Text, nullable=False),
    )

    op.create_table(
        "secret_sweeps",
        sa.Column("path", key, primary_key=True),
        sa.Column("due", instant, nullable=False),
    )

    op.create_table(
        "secret_records",
        sa.Column("path", key, primary_key=True),
        sa.Column("workspace", key, sa.ForeignKey("workspaces.key")),
        sa.Column("origins", sa.Text, nullable=False),
        sa.Column("created_at", instant, nullable=False),
        sa.Column("updated_at", instant, nullable=False),
    )

    op.create_table(
        "kept_results",
        sa.Column("id", key, primary_key=True),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("expires_at", instant, nullable=False),
    )
    op.create_index("kept_results_expired", "kept_results", ["expires_at"])

    op.create_table(
        "secret_values",
        sa.Column("path", key, primary_key=True),
        sa.Column("version", key, primary_key=True),
        sa.Column("key_id", key, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
        sa.Column("created_at", instant, nullable=False),
    )

    op.create_table(
        "calls",
        sa.Column("seq", number, primary_key=True, autoincrement=True),
        sa.Column("at", instant, nullable=False),
        sa.Column("workspace", key, nullable=False),
        sa.Column("caller", key, nullable=False),
        sa.Column("caller_kind", key, nullable=False),
        sa.Column("call_id", key, nullable=False),
        sa.Column("tool", key, nullable=False),
        sa.Column("integration", key),
        sa.Column("status", sa.Integer),
        sa.Column("error_code", key),
        sa.Column("ms", sa.Float, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("bytes", sa.BigInteger, nullable=False),
        sa.Column("arguments", sa.Text),
    )
    op.create_index("calls_newest", "calls", ["workspace", "seq"])
    op.create_index("calls_oldest", "calls", ["at"])

    op.create_table(
        "audit",
        sa.Column("seq", number, primary_key=True, autoincrement=True),
        sa.Column("at", instant, nullable=False),
        sa.Column("workspace", key, nullable=False),
        sa.Column("caller", key, nullable=False),
        sa.Column("caller_kind", key, nullable=False),
        sa.Column("action", key, nullable=False),
        sa.Column("kind", key, nullable=False),
        sa.Column("target", key, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("changes", sa.Text, nullable=False),
    )
    op.create_index("audit_newest", "audit", ["workspace", "seq"])
    op.create_index("audit_oldest", "audit", ["at"])
