"""All attempts, by the modules that list them."""

from tests.security import doors, egress, entries, fhir, hidden, injection, network, questions, tenants, upstreams
from tests.security.frame import ATTEMPTS

__all__ = [
    "ATTEMPTS",
    "doors",
    "egress",
    "entries",
    "fhir",
    "hidden",
    "injection",
    "network",
    "questions",
    "tenants",
    "upstreams",
]
