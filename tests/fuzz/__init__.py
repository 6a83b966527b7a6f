"""Parsers and guards under random and coverage-guided input. `python -m tests.fuzz.run NAME SECONDS` with atheris; see targets.py."""
