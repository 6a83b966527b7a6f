"""Reads {name: JSON Schema} from stdin and gives each to the converters of the providers' SDKs; prints {name: [what each said against it]}."""

import copy
import json
import sys
from collections.abc import Callable
from typing import Any

from google.genai import types
from pydantic_ai.profiles.google import GoogleJsonSchemaTransformer, GoogleOpenAPISchemaTransformer
from pydantic_ai.profiles.openai import OpenAIJsonSchemaTransformer


def gemini(schema: dict[str, Any]) -> None:
    """google-genai's types forbid what the API's Schema message doesn't have."""
    types.FunctionDeclaration(name="f", description="d", parameters=types.Schema.model_validate(schema))
    types.Schema.from_json_schema(json_schema=types.JSONSchema.model_validate(schema))


JUDGES: dict[str, Callable[[dict[str, Any]], Any]] = {
    "google-genai": gemini,
    "pydantic-ai for Google": lambda s: GoogleJsonSchemaTransformer(s).walk(),
    "pydantic-ai for Google's OpenAPI": lambda s: GoogleOpenAPISchemaTransformer(s).walk(),
    "pydantic-ai for OpenAI": lambda s: OpenAIJsonSchemaTransformer(s).walk(),
}
said: dict[str, list[str]] = {}
for name, schema in json.load(sys.stdin).items():
    for judge, convert in JUDGES.items():
        try:
            convert(copy.deepcopy(schema))
        except Exception as error:
            said.setdefault(name, []).append(f"{judge}: {error}")
print(json.dumps(said))
