"""The way out, as `doctor` looks at it: the proxies, the CA file and the certificates that are shown."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path

from cryptography import x509

from server.egress import EgressError, EgressSettings, proxy_of, showing, trusting
from server.finding import SOON, Finding
from tools.exchange import ConnectFailed

_ANSWER_S = 5.0


def environment_proxy(variables: Mapping[str, str]) -> Iterator[Finding]:
    """Proxies of the environment, which calls don't use."""
    ignored = sorted({name for name in variables if name.upper() in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")})
    if ignored:
        said = f"{', '.join(ignored)}: calls to integrations don't go through the environment's proxy"
        do = "let this machine reach the systems directly, or set INTEGRATIONS_MCP_OUTBOUND_PROXY"
        yield Finding("environment_proxy", "note", said, do)


async def outbound_proxy(settings: EgressSettings) -> AsyncIterator[Finding]:
    """Whether it answers, and lets us in. It is asked for a tunnel to itself: what it says to that doesn't matter, and nobody else is."""
    proxy = proxy_of(settings)
    if proxy is None:
        return
    at = f"{proxy.host}:{proxy.port}"
    do = "start it, or correct INTEGRATIONS_MCP_OUTBOUND_PROXY: without it no integration is reached"
    try:
        async with asyncio.timeout(_ANSWER_S):
            sock, status = await proxy.asked("127.0.0.1", proxy.port)
    except TimeoutError:
        yield Finding("outbound_proxy", "wrong", f"{at} doesn't answer within {_ANSWER_S:.0f} s", do)
        return
    except ConnectFailed as e:
        yield Finding("outbound_proxy", "wrong", f"{at}: {e}", do)
        return
    sock.close()
    if status == 407:
        said = f"{at} answers 407: " + ("user and password are refused" if proxy.credentials else "it wants a user")
        do = "write http://USER:PASSWORD@HOST:PORT into INTEGRATIONS_MCP_OUTBOUND_PROXY (or the file of ..._FILE)"
        yield Finding("outbound_proxy", "wrong", said, do)
    else:
        yield Finding("outbound_proxy", "ok", f"{at} answers")


def certificates(settings: EgressSettings, now: datetime | None = None) -> Iterator[Finding]:
    """The CA file, and each client certificate with its key."""
    now = now or datetime.now(UTC)
    try:
        trusting(settings)
    except EgressError as e:
        yield Finding("ca_file", "wrong", str(e), "give a PEM file that this user can read: nothing starts without it")
        return
    if settings.ca_file is not None:
        held = _held(settings.ca_file)
        said, do = f"{settings.ca_file}, {len(held)} authorities", ""
        if ending := [c for c in held if c.not_valid_after_utc < now + SOON]:
            said += f"; {len(ending)} of them ended or end soon: {_subject(ending[0])} ({_day(ending[0])})"
            do = "put their successors into the file, and restart the servers"
        yield Finding("ca_file", "note" if ending else "ok", said, do)
    for entry in settings.client_certificates:
        about = str(entry.file)
        try:
            showing(settings, entry)
        except EgressError as e:
            do = "write the certificate, then its key, unencrypted, into the file; nothing starts without it"
            yield Finding("client_certificate", "wrong", str(e), do, about)
        else:
            yield _shown(about, _held(entry.file)[:1], now)


def _shown(about: str, held: list[x509.Certificate], now: datetime) -> Finding:
    """The first in the file is the client's own."""
    do = "put a new certificate with its key into the file, and restart the servers"
    for own in held:
        if own.not_valid_after_utc <= now:
            return Finding("client_certificate", "wrong", f"it ended on {_day(own)}", do, about)
        if own.not_valid_before_utc > now:
            said = f"it isn't valid before {own.not_valid_before_utc:%Y-%m-%d %H:%M} UTC"
            return Finding("client_certificate", "wrong", said, "wait, or look at this machine's clock", about)
        if own.not_valid_after_utc < now + SOON:
            return Finding("client_certificate", "note", f"it ends on {_day(own)}", do, about)
        return Finding("client_certificate", "ok", f"its key fits, and it is valid until {_day(own)}", about=about)
    return Finding("client_certificate", "ok", "its key fits", about=about)


def _held(file: Path) -> list[x509.Certificate]:
    """The certificates in a file that OpenSSL has read; none where Python's own reader is stricter."""
    try:
        return x509.load_pem_x509_certificates(file.read_bytes())
    except (OSError, ValueError):
        return []


def _subject(certificate: x509.Certificate) -> str:
    return certificate.subject.rfc4514_string()[:100] or "one without a name"


def _day(certificate: x509.Certificate) -> str:
    return f"{certificate.not_valid_after_utc:%Y-%m-%d}"
