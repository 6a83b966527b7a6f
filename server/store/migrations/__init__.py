"""Alembic's folder: `versions` in order; `env.py` runs them on the connection that `schema.upgrade` gives."""
