"""Names of tools, unique in their workspace; callers' idempotency keys."""

import json

import sqlalchemy as sa
from alembic.operations import Operations

from tools.naming import tool_name

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    op.create_table(
        "idempotency_keys",
        sa.Column("key", key, primary_key=True),
        sa.Column("arguments", key, nullable=False),
        sa.Column("expires_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("idempotency_keys_expired", "idempotency_keys", ["expires_at"])
    names = op.create_table(
        "tool_names",
        sa.Column("workspace", key, sa.ForeignKey("workspaces.key"), primary_key=True),
        sa.Column("name", key, primary_key=True),
        sa.Column("integration", key, sa.ForeignKey("integrations.id", ondelete="CASCADE"), nullable=False),
        sa.Column("endpoint", key, nullable=False),
    )
    op.create_index("tool_names_integration", "tool_names", ["integration"])
    found: dict[tuple[str, str], dict[str, str]] = {}
    stored = sa.text("SELECT id, workspace, name, document FROM integrations ORDER BY created_at, id")
    for row in op.get_bind().execute(stored):
        for endpoint in json.loads(row.document).get("endpoints", ()):
            name = tool_name(row.name, endpoint["name"]).lower()
            found.setdefault(
                (row.workspace, name),
                {"workspace": row.workspace, "name": name, "integration": row.id, "endpoint": endpoint["name"]},
            )
    if found:
        op.bulk_insert(names, list(found.values()))
