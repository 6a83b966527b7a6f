"""The stages of a call, for people."""

import json
from typing import Any

from rich.console import Console

_PREVIEW = 300


def print_stages(found: dict[str, Any], console: Console | None = None) -> None:
    """Prints what `tools.explain.explain` found, in the order in which it happened."""
    out = console or Console(markup=False, highlight=False, soft_wrap=True)
    if (repaired := found.get("repaired")) is not None:
        out.print(f"  repaired    {'; '.join(repaired)}")
    if (request := found.get("request")) is not None:
        out.print(f"  request     {request['method']} {request['url']}")
        if request["body"]:
            out.print(f"              {_short(request['body'])}")
    if (credential := found.get("credential")) is not None:
        out.print(f"  credential  {_short(json.dumps(credential, ensure_ascii=False))}")
    for attempt in found.get("attempts", []):
        waited = f", waited {attempt['waited_s']:.1f} s" if attempt["waited_s"] else ""
        result = attempt["status"] or attempt["error"] or "no answer"
        out.print(f"  attempt {attempt['number']}   {result} in {attempt['ms']:.0f} ms ({attempt['why']}{waited})")
    for stage in found.get("stages", []):
        if "preview" in stage:
            size = f"{stage['bytes']} bytes, ~{stage['tokens']} tokens"
            out.print(f"  {stage['name'].removesuffix('_response'):<11} {size}: {_short(stage['preview'])}")
    if (failed := found.get("failed")) is not None:
        out.print(f"  failed at   {failed['stage']} [{failed['code']}]")


def _short(text: str) -> str:
    flat = " ".join(text.split())
    return flat if len(flat) <= _PREVIEW else flat[: _PREVIEW - 1] + "…"
