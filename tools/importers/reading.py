"""The bytes of a document as a source: the one function that runs in a process of its own."""

from tools.importers.capability import read_capability
from tools.importers.documents import parse_value, read_document
from tools.importers.frame import MAX_BYTES, Source
from tools.importers.openapi import read_openapi
from tools.json_values import is_object


def read_source(data: bytes, where: str) -> Source:
    """Raises SourceFault. `where` is the URL of the document, or ""."""
    if b"CapabilityStatement" in data and len(data) <= MAX_BYTES:
        value = parse_value(data)
        if is_object(value) and value.get("resourceType") == "CapabilityStatement":
            return read_capability(value, where.partition("?")[0].removesuffix("/metadata"))
    return read_openapi(read_document(data), where)
