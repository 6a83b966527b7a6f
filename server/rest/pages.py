"""Pages of a list, in the contract's words: `continuation_token` is where the next one begins."""

from typing import Annotated

from fastapi import Query

MAX_NUMBER = 2**53 - 1
"""Beyond what any list has, within what every database and JSON reader takes."""

Limit = Annotated[int, Query(gt=0, le=20)]
Offset = Annotated[int, Query(ge=0, le=MAX_NUMBER)]
LongLimit = Annotated[int, Query(gt=0, le=100)]
Before = Annotated[int | None, Query(ge=1, le=MAX_NUMBER)]


def next_offset(offset: int, shown: int, total: int) -> int | None:
    """Where the next page begins; None after the last one."""
    after = offset + shown
    return after if shown and after < total else None
