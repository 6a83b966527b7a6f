"""Replay: an endpoint's shaping over a response that is given, without calling anything. The same code as in a call."""

from collections.abc import Mapping
from typing import Any

from tools.answers import Raw
from tools.changes import merge_patch
from tools.cutting import divide, fit
from tools.endings import new_call_id
from tools.error_text import Situation, render
from tools.errors import InvalidRequest, Issue, ShapingFailed
from tools.hidden_text import visible, visible_value
from tools.json_value import plain
from tools.kinds.fhir.bundles import shape_fhir
from tools.models import EndpointConfig, Integration
from tools.outcome import Block, Outcome, Trace
from tools.parsing import parse
from tools.shaping import ShapeSyntaxError, compile_shaper, shape


def patched(endpoint: EndpointConfig, patch: Mapping[str, Any]) -> EndpointConfig:
    """The endpoint after a JSON merge patch (RFC 7396) that isn't stored. Raises InvalidRequest."""
    return parse(EndpointConfig, merge_patch(plain(endpoint), patch), ("body", "endpoint"))


def preview(
    integration: Integration, endpoint: EndpointConfig, tool: str, response: Any, params: Mapping[str, Any], budget: int
) -> Outcome:
    """What a call would come to if the upstream answered `response`; `budget` as in GatewayRules.

    Raises InvalidRequest where the shaping doesn't parse. A stage that fails is the outcome's error.
    """
    try:
        shaper = compile_shaper(endpoint)
    except ShapeSyntaxError as e:
        raise InvalidRequest([Issue(("body", "endpoint", *f.field), f.message) for f in e.faults]) from None
    trace = Trace(raw=Raw("json", response, "application/json"), arguments=dict(params))
    try:
        shaped = shape_fhir if integration.protocol == "fhir" else shape
        trace.shaped = shaped(shaper, params, response)
    except ShapingFailed as e:
        text = render(e, Situation(tool, endpoint.name, integration.name, writes=False))
        return Outcome(new_call_id(), tool, text, (Block("text", text),), 0.0, trace, e)
    text = visible(trace.shaped.text)
    trace.hidden = len(trace.shaped.text) - len(text)
    limit = endpoint.max_result_length or budget
    if limit and len(text) > limit:
        _, text = fit(divide(text, visible_value(trace.shaped.written_from), limit), limit)
    return Outcome(new_call_id(), tool, text, (Block("text", text),), 0.0, trace)
