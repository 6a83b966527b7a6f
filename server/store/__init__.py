"""The registry in SQL: tables, queries, migrations. SQLite by default, PostgreSQL by URL."""
