"""One call of an upstream's tool: a warm session, one deadline, and the truth about what may have been done."""

import asyncio
import time
from collections.abc import Mapping
from typing import Any, cast

import mcp_types
from pydantic import TypeAdapter, ValidationError

from tools.errors import (
    AnswerLost,
    CallError,
    InvalidResponse,
    OutcomeUnknown,
    Sent,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tools.kinds.mcp.mcp_tool import McpTool
from tools.kinds.mcp.rpc import LinkLost, Message, Progress, RpcError, SessionGone
from tools.kinds.mcp.sessions import McpSessions
from tools.kinds.rest import HOPS_HEADER, to_json
from tools.outcome import Trace
from tools.signing import CallSigner
from tools.upstream import Attempt, Request

_BLOCK: TypeAdapter[Any] = TypeAdapter(mcp_types.ContentBlock)
_ATTEMPTS = 3


async def call(
    sessions: McpSessions,
    tool: McpTool,
    values: Mapping[str, Any],
    signer: CallSigner,
    trace: Trace,
    *,
    hops: int,
    progress: Progress | None,
) -> tuple[Message, set[str]]:
    """The upstream's result, as it came, and what must be masked in it besides the signer's. Raises CallErrors."""
    trace.request = _shown(tool, values, hops)
    signs = signer if tool.integration.mcp_transport != "stdio" else None
    asked = False  # whether a request left whose outcome isn't known
    deadline = asyncio.timeout(tool.deadline_s)
    try:
        async with deadline:
            for number in range(1, _ATTEMPTS + 1):
                attempt = Attempt(number, None, 0.0, "first" if number == 1 else "connection lost", 0.0, None)
                trace.attempts.append(attempt)
                started = time.monotonic()
                try:
                    async with sessions.use(tool.integration, tool.auth) as connected:
                        asked = True
                        result = await connected.session.call(
                            tool.upstream_name,
                            values,
                            schema=tool.schema,
                            hops=hops,
                            signer=signs,
                            progress=progress,
                        )
                    return checked(result), connected.masks
                except SessionGone:
                    attempt.error = "it doesn't know the session any more"  # restarted: nothing was done
                    asked = False
                except LinkLost as e:
                    attempt.error, attempt.maybe_done = str(e), e.sent
                    asked = e.sent
                    if e.sent and (not tool.retry.idempotent or number > 1):
                        raise _lost(tool, e) from e
                except RpcError as e:
                    attempt.status, attempt.error = e.status, str(e)
                    raise _refused(e) from e
                except CallError as e:
                    attempt.status, attempt.error = e.upstream_status, e.message
                    raise
                finally:
                    attempt.ms = (time.monotonic() - started) * 1000
            raise UpstreamUnreachable("lost its connection again and again; nothing was sent")
    except TimeoutError as e:
        if not deadline.expired():
            raise
        sent: Sent = "no" if not asked else "unknown" if tool.writes else "yes"
        raise UpstreamTimeout(
            f"no answer within {tool.deadline_s:g} s", sent=sent, retryable=sent != "unknown" or tool.retry.idempotent
        ) from e


def checked(result: Message) -> Message:
    """A result that our own clients can take: what they wouldn't know as content becomes text; what they can't give is refused."""
    kind = result.get("resultType", "complete")
    if kind != "complete":
        what = "asks for input from the user" if kind == "input_required" else f"answered with {str(kind)[:40]!r}"
        raise UpstreamRefused(f"{what}, which this gateway doesn't pass on")
    content = result.get("content")
    if not isinstance(content, list):
        if "structuredContent" not in result:
            raise InvalidResponse("its answer is no result of a tool")
        content = []
    blocks = [_known(block) for block in cast("list[Any]", content)]
    return {**result, "content": blocks}


def _known(block: Any) -> Any:
    try:
        _BLOCK.validate_python(block)
    except ValidationError:
        return {"type": "text", "text": to_json(block).decode()}
    return block


def text_of(result: Message) -> str:
    """What a person reads of a result: its texts; other blocks by their kind."""
    return "\n".join(_text(block) for block in result["content"])


def _text(block: Message) -> str:
    match block.get("type"):
        case "text":
            return str(block.get("text", ""))
        case "resource_link":
            return f"[resource {block.get('uri')}]"
        case "resource":
            inner = cast("Message", block.get("resource") or {})
            return str(inner["text"]) if "text" in inner else f"[resource {inner.get('uri')}]"
        case kind:
            return f"[{kind} {block.get('mimeType', '')}]"


def _refused(e: RpcError) -> CallError:
    return UpstreamRefused(f"refused the call ({e.code})", said=e.message[:2000] or None, upstream_status=e.status)


def _lost(tool: McpTool, e: LinkLost) -> CallError:
    if tool.retry.idempotent:
        return AnswerLost("lost the connection before the answer was complete", detail=str(e))
    return OutcomeUnknown("The connection was lost after the call was sent", detail=str(e))


def _shown(tool: McpTool, values: Mapping[str, Any], hops: int) -> Request:
    """For explain and test: what goes out, but for the credential."""
    i = tool.integration
    params = {"name": tool.upstream_name, "arguments": dict(values)}
    body = to_json({"jsonrpc": "2.0", "method": "tools/call", "params": params})
    return Request("POST", i.mcp_url or f"stdio:{i.mcp_command}", ((HOPS_HEADER, str(hops)),), body)
