"""Models as JSON values, in the contract's spelling."""

from typing import Any

from pydantic import BaseModel


def plain(model: BaseModel) -> dict[str, Any]:
    """The model as a JSON object: dates as text, tuples as arrays."""
    return model.model_dump(mode="json")
