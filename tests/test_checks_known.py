"""What was checked before isn't checked again, and excuses nothing else."""

from datetime import UTC, datetime
from typing import Any

from tests.world import LOOPBACK
from tools.address_guard import NetworkPolicy
from tools.checks import CheckRules, GoodEndpoints, check
from tools.models import Integration

NOW = datetime(2026, 1, 1, tzinfo=UTC)


def integration(protocol: str = "rest", **fields: Any) -> Integration:
    endpoint = {"name": "do", "description": "d", "method": "GET", "path": "/x/{id}", **fields}
    document = {"name": "sys", "display_name": "S", "base_url": "https://api.example", "protocol": protocol}
    stored = {"id": "1", "workspace_id": "acme", "created_at": NOW, "updated_at": NOW}
    return Integration.model_validate({**document, **stored, "endpoints": [endpoint]})


def faults(given: Integration, good: GoodEndpoints, network: NetworkPolicy = LOOPBACK) -> list[str]:
    return [issue.msg for issue in check(given, (), CheckRules(network), {}, good)]


def with_default(value: Any) -> Integration:
    schema = {"type": "object", "properties": {"n": {"default": value}}}
    # As a caller in this process could give it: JSON has no NaN.
    made = integration().endpoints[0].model_copy(update={"input_schema": schema})
    return integration().model_copy(update={"endpoints": (made,)})


def test_an_endpoint_that_was_good_is_good_again_and_its_every_change_is_looked_at() -> None:
    good = GoodEndpoints()
    assert not faults(integration(), good)
    assert not faults(integration(), good)
    changes: list[dict[str, Any]] = [
        {"path": "/x/{id"},
        {"response_filter": ["$["]},
        {"input_schema": {"type": "array"}},
    ]
    for changed in changes:
        assert faults(integration(**changed), good)
        assert faults(integration(**changed), good), "a fault is told each time"
    assert not faults(with_default(None), good)
    assert faults(with_default(float("nan")), good), "not taken for null, as JSON would write it"


def test_the_same_endpoint_is_looked_at_anew_under_another_protocol() -> None:
    good = GoodEndpoints()
    assert not faults(integration(method="DELETE"), good)
    assert faults(integration(method="DELETE"), good) == faults(integration(method="DELETE"), GoodEndpoints())
    fhir = integration(protocol="fhir", method="PATCH", path="/Nothing/{id}/$bad op")
    assert faults(fhir, good) == faults(fhir, GoodEndpoints())


def test_an_address_of_an_endpoints_own_is_asked_about_each_time() -> None:
    good, own = GoodEndpoints(), integration(base_url="http://127.0.0.1:1/")
    assert not faults(own, good)
    assert faults(own, good, NetworkPolicy()), "the network's rules have changed meanwhile"


def test_what_is_kept_is_bounded() -> None:
    good = GoodEndpoints(most=2)
    for n in range(5):
        assert not faults(integration(path=f"/x/{n}"), good)
    kept = [n for n in range(5) if good.key(integration(), integration(path=f"/x/{n}").endpoints[0]) in good]
    assert kept == [4]
