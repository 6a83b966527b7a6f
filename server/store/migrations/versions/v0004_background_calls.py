"""Calls that run in the background."""

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0004"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    instant = sa.DateTime(timezone=True)
    op.create_table(
        "background_calls",
        sa.Column("id", key, primary_key=True),
        sa.Column("workspace", key, nullable=False),
        sa.Column("workspace_id", key, nullable=False),
        sa.Column("caller", key, nullable=False),
        sa.Column("tool", key, nullable=False),
        sa.Column("integration", key, nullable=False),
        sa.Column("version", sa.BigInteger(), nullable=False),
        sa.Column("same", key),
        sa.Column("given", key),
        sa.Column("wanted", key, nullable=False),
        sa.Column("state", key, nullable=False),
        sa.Column("owner", key),
        sa.Column("lease_until", instant),
        sa.Column("attempts", sa.Integer(), nullable=False),
        sa.Column("progress", sa.Float()),
        sa.Column("error_code", key),
        sa.Column("accepted_at", instant, nullable=False),
        sa.Column("started_at", instant),
        sa.Column("ended_at", instant),
        sa.Column("expires_at", instant, nullable=False),
        sa.Column("key_id", key, nullable=False),
        sa.Column("sealed", sa.LargeBinary(), nullable=False),
        sa.Column("result", sa.LargeBinary()),
        sa.UniqueConstraint("same", name="background_calls_same"),
        sa.UniqueConstraint("given", name="background_calls_given"),
    )
    op.create_index("background_calls_waiting", "background_calls", ["state", "accepted_at"])
    op.create_index("background_calls_newest", "background_calls", ["workspace", "accepted_at"])
    op.create_index("background_calls_expired", "background_calls", ["expires_at"])
    op.execute("INSERT INTO counters (name, value) VALUES ('calls', 0)")
