"""The bytes of a document as a source: the one function that runs in a process of its own."""

from tools.importers.documents import read_document
from tools.importers.frame import Source
from tools.importers.openapi import read_openapi


def read_source(data: bytes, where: str) -> Source:
    """Raises SourceFault. `where` is the URL of the document, or ""."""
    return read_openapi(read_document(data), where)
