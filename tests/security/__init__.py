"""Attacks by class, entry point and guard: each gets nothing through, and each does once its guard is off (frame.py)."""
