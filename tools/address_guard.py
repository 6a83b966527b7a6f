"""Which addresses and ports an integration may reach (rules H1). Pure but for `is_this_host`, which asks the kernel.

The guard is asked three times: for the URL as it is written (`check_url`: literal addresses and ports, no DNS), for every
address that a name resolves to, and where the socket is made. All three end in `judge`.
"""

import re
import socket
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

from yarl import URL

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

# Never reachable, private networks allowed or not: cloud metadata, link-local, "this host", multicast, reserved.
_NEVER: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "0.0.0.0/8",
        "100.100.100.200/32",
        "168.63.129.16/32",
        "169.254.0.0/16",
        "192.0.0.0/24",
        "224.0.0.0/4",
        "240.0.0.0/4",
        "::/128",
        "fd00:ec2::/32",
        "fd20:ce::254/128",
        "fe80::/10",
        "ff00::/8",
    )
)
# Not globally routable. Our own table, because Python's `is_global` moves between versions and misses several of these.
_PRIVATE_V4: tuple[Network, ...] = tuple(
    ip_network(network)
    for network in (
        "10.0.0.0/8",
        "100.64.0.0/10",
        "127.0.0.0/8",
        "172.16.0.0/12",
        "192.0.2.0/24",
        "192.88.99.0/24",
        "192.168.0.0/16",
        "198.18.0.0/15",
        "198.51.100.0/24",
        "203.0.113.0/24",
    )
)
# IPv6 is the other way round: global unicast is 2000::/3, less these; NAT64 (64:ff9b::/96) is judged by its inner address.
_GLOBAL_V6 = ip_network("2000::/3")
_PRIVATE_V6: tuple[Network, ...] = tuple(
    ip_network(network) for network in ("2001::/23", "2001:db8::/32", "3fff::/20", "3ffe::/16")
)
_COMPATIBLE = ip_network("::/96")
_NAT64 = ip_network("64:ff9b::/96")
_NAT64_LOCAL = ip_network("64:ff9b:1::/48")
_LOOPBACK_V6 = IPv6Address("::1")
_ANY_V4 = IPv4Address("0.0.0.0")  # noqa: S104 - compared with, never listened on

# Services that must not be spoken to in HTTP: ssh, telnet, mail, dns, windows, docker, redis, memcached.
REFUSED_PORTS = frozenset({22, 23, 25, 53, 110, 135, 139, 143, 445, 465, 587, 993, 995, 2375, 6379, 11211})

# Port included: yarl takes ":+8" for 8 and others don't, so what isn't plain is nobody's.
_AUTHORITY = re.compile(r"(?:\[[^\[\]@/]+\]|[^\[\]:@/]+)(?::[0-9]{0,5})?", re.ASCII)
_HOST_NAME = re.compile(r"[A-Za-z0-9_-]+(?:\.[A-Za-z0-9_-]+)*\.?")
_NUMERIC_LABEL = re.compile(r"[0-9]+|0[xX][0-9A-Fa-f]*")
_CANONICAL_V4 = re.compile(r"(?:0|[1-9][0-9]{0,2})(?:\.(?:0|[1-9][0-9]{0,2})){3}")


@dataclass(frozen=True, slots=True)
class NetworkPolicy:
    """What the operator allows. The addresses of `_NEVER` and our own listeners stay refused whatever it says.

    `allow_private`: all private networks (loopback too), none, or these. `own_listeners`: (address, port) that this
    process listens on; 0.0.0.0 or :: means every address of this host.
    """

    allow_private: bool | tuple[Network, ...] = False
    allowed_ports: frozenset[int] = frozenset()
    own_listeners: frozenset[tuple[str, int]] = frozenset()

    def allows_private(self, address: Address) -> bool:
        if isinstance(self.allow_private, bool):
            return self.allow_private
        return any(address in network for network in self.allow_private)

    def listens_everywhere_on(self, port: int) -> bool:
        return ("0.0.0.0", port) in self.own_listeners or ("::", port) in self.own_listeners  # noqa: S104


def private_networks(setting: bool | Sequence[str]) -> bool | tuple[Network, ...]:
    """The setting (true, false, or CIDRs) as NetworkPolicy takes it. ValueError names the CIDR that isn't one."""
    return setting if isinstance(setting, bool) else tuple(ip_network(cidr) for cidr in setting)


def judge(address: str | Address, port: int, policy: NetworkPolicy) -> str | None:
    """None if a connection to this address and port may be made, else the reason, for operators.

    `address` is an address, not a name; one that doesn't parse, or that has a zone, is refused.
    """
    if reason := _judge_port(port, policy):
        return reason
    if isinstance(address, str):
        try:
            address = ip_address(address)
        except ValueError:
            return f"{address} isn't an address"
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        return f"{address} has a zone, so it is link-local"
    for candidate in _meanings(address):
        if reason := _judge_one(candidate, port, policy):
            return reason if candidate == address else f"{address} holds {candidate}: {reason}"
    return None


def _judge_port(port: int, policy: NetworkPolicy) -> str | None:
    if not 0 < port < 65536:
        return f"port {port} isn't a port"
    if port in REFUSED_PORTS and port not in policy.allowed_ports:
        return f"port {port} is refused unless the operator allows it"
    return None


def _judge_one(address: Address, port: int, policy: NetworkPolicy) -> str | None:
    if any(address in network for network in _NEVER):
        return f"{address} is never reachable (metadata, link-local, multicast or reserved)"
    if (str(address), port) in policy.own_listeners or (address.is_loopback and policy.listens_everywhere_on(port)):
        return f"{address} port {port} is this gateway itself"
    if not _is_global(address) and not policy.allows_private(address):
        return f"{address} isn't globally routable and private networks aren't allowed"
    return None


def _is_global(address: Address) -> bool:
    if isinstance(address, IPv4Address):
        return not any(address in network for network in _PRIVATE_V4)
    if address in _GLOBAL_V6:
        return not any(address in network for network in _PRIVATE_V6)
    return address in _NAT64


def _meanings(address: Address) -> Iterator[Address]:
    """The address itself and every IPv4 address that it embeds; for ::ffff:a.b.c.d and ::a.b.c.d the inner one alone."""
    if isinstance(address, IPv4Address):
        yield address
        return
    number = int(address)
    low = IPv4Address(number & 0xFFFFFFFF)
    if address.ipv4_mapped is not None:
        yield address.ipv4_mapped
        return
    if address in _COMPATIBLE and address != _LOOPBACK_V6 and number:
        yield low
        return
    yield address
    if address in _NAT64:
        yield low
    elif address in _NAT64_LOCAL:
        # The operator of such a translator chooses /96 or /48 (RFC 6052 2.2: bits 48-63 and 72-87); both readings count.
        split = IPv4Address((((number >> 64) & 0xFFFF) << 16) | ((number >> 40) & 0xFFFF))
        yield from (inner for inner in (low, split) if inner != _ANY_V4)
    elif address.sixtofour is not None:
        yield address.sixtofour
    elif address.teredo is not None:
        yield from address.teredo


def check_url(url: str | URL, policy: NetworkPolicy) -> str | None:
    """None if the guard has nothing against this URL as written, else the reason. No DNS: names are judged when resolved.

    Every spelling of an address is read as the C library and browsers would (decimal, octal, hex, short, full-width, trailing
    dot). IPv4 in another than its usual spelling is refused even where the address is fine: resolvers differ on them.
    """
    try:
        parsed = URL(url, encoded=True) if isinstance(url, str) else url
        host, port, scheme = parsed.raw_host, parsed.port, parsed.scheme
        if parsed.raw_user is not None or parsed.raw_password is not None:
            return "the URL holds a user name or password"
        if parsed.raw_authority and not _AUTHORITY.fullmatch(parsed.raw_authority):
            return "the URL's host and port can't be read"
    except (ValueError, IndexError):  # yarl indexes into the host of http://[::1]@/, which is empty
        return "the URL doesn't parse"
    if scheme not in ("http", "https"):
        return "only http and https URLs can be reached"
    if not host or port is None:
        return "the URL has no host"
    host = unicodedata.normalize("NFKC", host).replace("\u3002", ".").replace("\u00ad", "")
    try:
        address = spelled_address(host)
    except ValueError:
        return f"{host} is neither a name nor an address"
    if address is not None:
        if reason := judge(address, port, policy):
            return reason
        if isinstance(address, IPv4Address) and not _CANONICAL_V4.fullmatch(host):
            return f"{host} is an unusual spelling of {address}: write it so"
        return None
    if host.isascii() and not _HOST_NAME.fullmatch(host):
        return f"{host!r} isn't a host name"
    return _judge_port(port, policy)


def spelled_address(host: str) -> Address | None:
    """The address that this host spells, None if it is a name. ValueError: it ends in a number but is no address.

    Reads what inet_aton and the WHATWG URL standard (4.5, "ends in a number") read: 1 to 4 parts, decimal, 0octal, 0xhex.
    """
    if ":" in host:
        return IPv6Address(host)
    parts = host.removesuffix(".").split(".")
    if not _NUMERIC_LABEL.fullmatch(parts[-1]):
        return None
    if len(parts) > 4:
        raise ValueError(host)
    numbers = [_number(part) for part in parts]
    last = numbers.pop()
    if any(number > 255 for number in numbers) or last >= 256 ** (4 - len(numbers)):
        raise ValueError(host)
    return IPv4Address(sum(number << (24 - 8 * place) for place, number in enumerate(numbers)) + last)


def _number(part: str) -> int:
    if not _NUMERIC_LABEL.fullmatch(part):
        raise ValueError(part)
    if part[:2] in ("0x", "0X"):
        return int(part[2:] or "0", 16)
    return int(part, 8 if len(part) > 1 and part[0] == "0" else 10)


def is_this_host(address: Address) -> bool:
    """True if the address belongs to an interface of this host: exactly those can be bound. Sends nothing."""
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((str(address), 0))
    except OSError:
        return False
    return True
