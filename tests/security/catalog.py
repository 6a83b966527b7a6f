"""All attempts, by the modules that list them."""

from tests.security import doors, fhir, injection, network, tenants, upstreams
from tests.security.frame import ATTEMPTS

__all__ = ["ATTEMPTS", "doors", "fhir", "injection", "network", "tenants", "upstreams"]
