"""One call of an upstream's tool: a warm session, one deadline, and the truth about what may have been done."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Any, Protocol, cast

import mcp_types
from pydantic import TypeAdapter, ValidationError

from tools.answers import Raw
from tools.cursors import Cursors
from tools.cutting import write
from tools.errors import (
    AnswerLost,
    ArgumentFault,
    CallError,
    InvalidArguments,
    InvalidResponse,
    OutcomeUnknown,
    Sent,
    StateRefused,
    UpstreamRefused,
    UpstreamTimeout,
    UpstreamUnreachable,
)
from tools.hidden_text import visible, visible_value
from tools.json_schema import is_object, wire_name
from tools.kinds.mcp.mcp_tool import McpTool
from tools.kinds.mcp.questions import MAX_ROUNDS, Interview, User
from tools.kinds.mcp.rpc import LinkLost, Message, Progress, RpcError, SessionGone, parsed
from tools.kinds.mcp.sessions import McpSessions, asker_of, is_modern
from tools.kinds.rest import HOPS_HEADER, to_json
from tools.outcome import Trace
from tools.signing import CallSigner
from tools.upstream import Attempt, Request

_BLOCK: TypeAdapter[Any] = TypeAdapter(mcp_types.ContentBlock)
_ATTEMPTS = 3
_SHOWN = frozenset({"description", "name", "text", "title"})
"""What of a content block is read as text."""


class Told(Protocol):
    """Who is told of progress: the client's wire."""

    async def __call__(self, done: float, message: str, total: float | None = None) -> None: ...


async def call_mcp(
    sessions: McpSessions,
    tool: McpTool,
    arguments: Mapping[str, Any],
    signer: CallSigner,
    trace: Trace,
    *,
    hops: int,
    progress: Told | None,
    admit: Callable[[], Awaitable[None]],
    cursors: Cursors,
    user: User | None = None,
    caller: str = "",
) -> Message:
    """The upstream's masked result; in the trace what shaping would begin with. `admit` raises where it may not be sent.

    `user` can be asked, as `caller`, where the upstream wants to. Raises CallErrors, InputRequired.
    """
    prepared = tool.arguments.prepare(arguments)
    trace.changes, trace.arguments = prepared.changes, prepared.values
    values = {wire_name(name, tool.schema.get("properties", {}).get(name)): v for name, v in prepared.values.items()}

    trace.request = _shown(tool, values, hops)
    await admit()

    async def told(done: float, total: float | None, message: str | None) -> None:
        if progress is not None:
            await progress(done, visible(message or ""), total)

    hears = told if progress is not None else None
    states = _States(cursors, tool, caller, prepared.values)
    sending = _Sending(sessions, tool, values, signer, trace, hops, hears, states)
    if user is not None and (user.asks_now or is_modern(tool.integration)):
        result = await sending.result(user, asker_of(tool.integration, caller))
    else:
        result = await sending.result(None, "")
    masker = tool.masker(signer.masks)
    seen, trace.hidden = without_hidden(checked(masker.value(result)))
    result = masker.value(seen)  # again: hidden characters within a secret would keep it from being masked
    if tool.is_shaped and result.get("isError"):
        raise UpstreamRefused("says that the call failed", said=text_of(result)[:2000] or None)
    trace.raw = value_of(result)
    if not result["content"] and "structuredContent" not in result:
        text = f"The {tool.integration.name}'s server answered, and the result is empty."
        result = {**result, "content": [{"type": "text", "text": text}]}
    return result


@dataclass(slots=True)
class _Sending:
    """One call under way. `maybe_done`: a request left whose outcome isn't known."""

    sessions: McpSessions
    tool: McpTool
    values: Mapping[str, Any]
    signer: CallSigner
    trace: Trace
    hops: int
    progress: Progress | None
    states: "_States"
    maybe_done: bool = False

    async def result(self, user: User | None, asker: str) -> Message:
        """The result, when `user` was asked all that the upstream wanted to know. Raises CallErrors, InputRequired."""
        tool, deadline = self.tool, asyncio.timeout(self.tool.deadline_s)
        interview = None
        if user is not None:
            name = tool.integration.name
            interview = Interview(user, name, lambda: tool.masker(self.signer.masks), deadline, self.states)
        answers = interview.begin() if interview is not None else {}
        try:
            async with deadline:
                for _ in range(MAX_ROUNDS):
                    result = await self._sent(interview, asker, answers)
                    if interview is None or result.get("resultType") != "input_required":
                        return result
                    self.maybe_done = False
                    answers = await interview.go_on(result)
                raise UpstreamRefused("asks for input again and again")
        except TimeoutError as e:
            if not deadline.expired():
                raise
            sent: Sent = "no" if not self.maybe_done else "unknown" if tool.writes else "yes"
            raise UpstreamTimeout(
                f"no answer within {tool.deadline_s:g} s",
                sent=sent,
                retryable=sent != "unknown" or tool.retry.idempotent,
            ) from e
        finally:
            if interview is not None:
                interview.close()

    async def _sent(self, interview: Interview | None, asker: str, answers: Mapping[str, Any]) -> Message:
        """One request and its answer, sent again where nothing can have been done."""
        tool, trace = self.tool, self.trace
        signs = self.signer if tool.integration.mcp_transport != "stdio" else None
        for number in range(1, _ATTEMPTS + 1):
            attempt = Attempt(number, None, 0.0, "first" if number == 1 else "connection lost", 0.0, None)
            trace.attempts.append(attempt)
            started = time.monotonic()
            try:
                async with self.sessions.use(tool.integration, tool.auth, asker) as connected:
                    self.signer.masks += tuple(connected.masks)
                    self.maybe_done = True
                    return await connected.session.call(
                        tool.upstream_name,
                        self.values,
                        schema=tool.schema,
                        hops=self.hops,
                        signer=signs,
                        progress=self.progress,
                        meta={} if trace.span is None else trace.span.carried(),
                        asked=interview.answer if interview is not None else None,
                        answers=answers,
                    )
            except SessionGone:
                attempt.error = "it doesn't know the session any more"  # restarted: nothing was done
                self.maybe_done = False
            except LinkLost as e:
                attempt.error, attempt.maybe_done = str(e), e.sent
                self.maybe_done = e.sent
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


def checked(result: Message) -> Message:
    """A result that our own clients can take: what they wouldn't know as content becomes text; what they can't give is refused."""
    kind = result.get("resultType", "complete")
    if kind != "complete":
        if kind == "input_required":
            raise UpstreamRefused("asks for input from the user, and the caller's client can't be asked here")
        raise UpstreamRefused(f"answered with {str(kind)[:40]!r}, which this gateway doesn't pass on")
    content = result.get("content")
    if not isinstance(content, list):
        if "structuredContent" not in result:
            raise InvalidResponse("its answer is no result of a tool")
        content = []
    blocks = [_known(block) for block in cast("list[Any]", content)]
    found = {**result, "content": blocks}
    if not is_object(found.get("_meta", {})):
        del found["_meta"]
    structured = found.get("structuredContent")
    if "structuredContent" in found and not isinstance(structured, dict):
        # Before 2026-07-28 only objects were allowed: such clients would lose the whole result over it.
        del found["structuredContent"]
        if not blocks:
            found["content"] = [{"type": "text", "text": to_json(structured).decode()}]
    return found


@dataclass(frozen=True, slots=True)
class _States:
    """`questions.States` for one caller's call of one tool with these arguments."""

    cursors: Cursors
    tool: McpTool
    caller: str
    arguments: Mapping[str, Any]

    @property
    def _of(self) -> tuple[str, ...]:
        i = self.tool.integration
        return i.workspace_id, i.id, self.tool.upstream_name, self.caller, "requestState"

    def seal(self, state: str) -> str:
        return self.cursors.seal(state, self._of, self.arguments)

    def open(self, sealed: str) -> str:
        try:
            return self.cursors.open(sealed, self._of, self.arguments)
        except InvalidArguments:
            told = "isn't one that this tool gave you for these arguments within the hour: call again without it."
            raise StateRefused([ArgumentFault("requestState", told)], self.tool.arguments.names) from None


def without_hidden(result: Message) -> tuple[Message, int]:
    """A checked result as people see it (`tools.hidden_text`), and how many characters that took out."""
    taken = 0

    def seen(value: Any) -> Any:
        nonlocal taken
        kept = visible_value(value)
        if kept is not value:
            taken += len(write(value)) - len(write(kept))
        return kept

    def block(shown: Message) -> Message:
        inner = shown.get("resource")
        more = {"resource": block(cast("Message", inner))} if isinstance(inner, dict) else {}
        return {**shown, **{k: seen(v) for k, v in shown.items() if k in _SHOWN}, **more}

    found = {**result, "content": [block(b) for b in result["content"]]}
    if "structuredContent" in result:
        found["structuredContent"] = seen(result["structuredContent"])
    return found, taken


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


def value_of(result: Message) -> Raw:
    """What shaping begins with: the structured content where there is some, else the text, read as JSON where it is JSON."""
    if (structured := result.get("structuredContent")) is not None:
        return Raw("json", structured)
    text = text_of(result)
    if text[:1] in ("{", "["):
        try:
            return Raw("json", parsed(text))
        except ValueError:
            pass
    return Raw("text", text, "text/plain")


def is_plain_text(result: Message) -> bool:
    """Whether it is one text and nothing else, so that it can be cut and read on like any other."""
    blocks = result["content"]
    plain = "structuredContent" not in result and not result.get("isError")
    return plain and len(blocks) == 1 and blocks[0].get("type") == "text"
