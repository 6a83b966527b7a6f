"""The settings of the way out, and the way out that they describe: proxy, CA, client certificates, hosts that may be reached."""

import ipaddress
import ssl
from collections.abc import Iterable
from pathlib import Path
from urllib.parse import unquote, urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator

from server.limits import LimitSettings
from tools.host_list import EVERY, HostList, plain_host
from tools.kinds.paths import base_url_fault, origin_of
from tools.models import WORKSPACE_ID
from tools.way_out import Proxy, WayOut, strict_tls

Network = ipaddress.IPv4Network | ipaddress.IPv6Network
_WORKSPACE = rf"{WORKSPACE_ID}|^\*$"


class EgressError(ValueError):
    """A file of these settings can't be used; the message says which, and why."""


class ClientCertificate(BaseModel):
    """One entry of `client_certificates`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    workspace: str = Field(default=EVERY, pattern=_WORKSPACE)
    origins: tuple[str, ...] = Field(min_length=1)
    file: Path

    @field_validator("origins")
    @classmethod
    def _origins(cls, urls: tuple[str, ...]) -> tuple[str, ...]:
        for url in urls:
            if fault := base_url_fault(url):
                raise ValueError(f"{url!r} is no origin: {fault}")
            if not url.lower().startswith("https://"):
                raise ValueError(f"{url!r}: a certificate is shown over https only")
        return tuple(origin_of(url) for url in urls)


class AllowedUpstreams(BaseModel):
    """One entry of `upstream_hosts_allow`."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    workspace: str = Field(default=EVERY, pattern=_WORKSPACE)
    hosts: tuple[str, ...]

    @field_validator("hosts")
    @classmethod
    def _hosts(cls, hosts: tuple[str, ...]) -> tuple[str, ...]:
        for host in hosts:
            if not host.removeprefix("*.") or "*" in host.removeprefix("*.") or set(host) & set("/@ []"):
                raise ValueError(
                    f"{host!r} is no host: write api.example.com, *.example.com or an address, without port"
                )
        return tuple(plain_host(host) for host in hosts)


class EgressSettings(LimitSettings):
    """How calls leave this machine."""

    outbound_proxy: SecretStr | None = Field(
        default=None,
        description="http://[USER:PASSWORD@]HOST:PORT of an HTTP proxy that calls to integrations and identity providers go through (CONNECT to the checked address, for http too). Empty: none; HTTP_PROXY and its like are never read.",
    )
    outbound_proxy_except: str = Field(
        default="", description="Comma-separated CIDRs of addresses that are reached without the proxy."
    )
    ca_file: Path | None = Field(
        default=None,
        description="PEM file of further certificate authorities that upstreams' certificates may be of, beside the system's.",
    )
    client_certificates: tuple[ClientCertificate, ...] = Field(
        default=(),
        description='JSON list of {"workspace","origins","file"}: a PEM file (certificate, then key) that is shown to these https origins (mTLS), in this workspace or * for all.',
    )
    upstream_hosts_allow: tuple[AllowedUpstreams, ...] = Field(
        default=(),
        description='JSON list of {"workspace","hosts"}: if given, nothing else is reached: names, *.example.com or addresses, for this workspace or * for all. The address guard holds beside it.',
    )

    @field_validator("outbound_proxy")
    @classmethod
    def _proxy(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None:
            try:
                parts = urlsplit(url.get_secret_value())
                fine = parts.scheme == "http" and parts.hostname and parts.port and parts.path in ("", "/")
            except ValueError:
                fine = False
            if not fine:
                raise ValueError("a proxy is http://HOST:PORT, or http://USER:PASSWORD@HOST:PORT")
        return url

    @field_validator("outbound_proxy_except")
    @classmethod
    def _except(cls, text: str) -> str:
        networks_of(filter(None, text.split(",")), "CIDRs like 10.0.0.0/8")
        return text


def networks_of(parts: Iterable[str], write: str = "") -> tuple[Network, ...]:
    """Of CIDRs. Raises ValueError, which says what to `write`."""
    found: list[Network] = []
    for part in parts:
        try:
            found.append(ipaddress.ip_network(part.strip()))
        except ValueError:
            raise ValueError(f"{part.strip()!r} is not a network: write {write}") from None
    return tuple(found)


def way_out(settings: EgressSettings) -> WayOut:
    """Raises EgressError where a file can't be used."""
    shown: dict[tuple[str, str, int], ssl.SSLContext] = {}
    for entry in settings.client_certificates:
        context = showing(settings, entry)
        for origin in entry.origins:
            at = urlsplit(origin)
            shown[entry.workspace.lower(), plain_host(at.hostname or ""), at.port or 443] = context
    return WayOut(trusting(settings), shown, proxy_of(settings), host_list(settings))


def host_list(settings: EgressSettings) -> HostList:
    hosts: dict[str, tuple[str, ...]] = {}
    for allowed in settings.upstream_hosts_allow:
        key = allowed.workspace.lower()
        hosts[key] = (*hosts.get(key, ()), *allowed.hosts)
    return HostList(hosts or None)


def trusting(settings: EgressSettings) -> ssl.SSLContext:
    """With the CA file's authorities beside the system's. Raises EgressError."""
    context = strict_tls()
    if settings.ca_file is not None:
        try:
            context.load_verify_locations(settings.ca_file)
        except OSError as e:  # ssl.SSLError is one
            raise EgressError(f"ca_file: {settings.ca_file} can't be used ({_why(e)})") from None
    return context


def showing(settings: EgressSettings, entry: ClientCertificate) -> ssl.SSLContext:
    """`trusting`, and this certificate is shown. Raises EgressError, also where its key is another one's."""
    context = trusting(settings)
    try:
        context.load_cert_chain(entry.file, password=_no_password)
    except (OSError, ValueError) as e:
        raise EgressError(f"client_certificates: {entry.file} can't be used ({_why(e)})") from None
    return context


def _no_password() -> str:
    raise ValueError("its key is encrypted")


def _why(error: Exception) -> str:
    if isinstance(error, ssl.SSLError):
        if error.reason == "KEY_VALUES_MISMATCH":
            return "its key isn't its certificate's: the client's own certificate comes first"
        return "it must hold certificates in PEM, and a client's its key too"
    return error.strerror or str(error) if isinstance(error, OSError) else str(error)


def proxy_of(settings: EgressSettings) -> Proxy | None:
    if settings.outbound_proxy is None:
        return None
    parts = urlsplit(settings.outbound_proxy.get_secret_value())
    user = f"{unquote(parts.username or '')}:{unquote(parts.password or '')}" if parts.username else ""
    direct = networks_of(filter(None, settings.outbound_proxy_except.split(",")))
    return Proxy(parts.hostname or "", parts.port or 0, user, direct)
