"""Approvals of calls."""

import sqlalchemy as sa
from alembic.operations import Operations

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade(op: Operations) -> None:
    key = sa.Text().with_variant(sa.Text(collation="C"), "postgresql")
    instant = sa.DateTime(timezone=True)
    op.create_table(
        "approvals",
        sa.Column("id", key, primary_key=True),
        sa.Column("workspace", key, nullable=False),
        sa.Column("caller", key, nullable=False),
        sa.Column("bound", key, nullable=False, unique=True),
        sa.Column("state", key, nullable=False),
        sa.Column("created_at", instant, nullable=False),
        sa.Column("expires_at", instant, nullable=False),
        sa.Column("sealed", sa.LargeBinary, nullable=False),
    )
    op.create_index("approvals_expired", "approvals", ["expires_at"])
    op.create_index("approvals_newest", "approvals", ["workspace", "created_at"])
