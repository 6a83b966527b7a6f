"""Alembic's folder: the steps in `versions`, which `schema.migrate` runs in order."""
