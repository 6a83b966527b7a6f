"""The address guard by itself (rules H1, J10): every spelling of every kind of address."""

import socket
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tools.address_guard import (
    REFUSED_PORTS,
    NetworkPolicy,
    check_url,
    is_this_host,
    judge,
    private_networks,
    spelled_address,
)

STRICT = NetworkPolicy()
PRIVATE = NetworkPolicy(allow_private=True)

# Spellings of loopback that inet_aton, getaddrinfo or a browser reads as 127.0.0.1.
LOOPBACK = [
    "127.0.0.1",
    "127.0.0.1.",
    "127.1",
    "127.0.1",
    "127.255.255.254",
    "2130706433",
    "0x7f000001",
    "0x7F000001",
    "017700000001",
    "0177.0.0.1",
    "0x7f.0.0.1",
    "0x7f.1",
    "0177.1",
    "127.0x1",
    "127.0.0x0.01",
    "00000177.0.0.1",
    "１２７.0.0.1",
    "①②⑦.0.0.1",
    "127。0。0。1",
    "127．0．0．1",
    "[::1]",
    "[0:0:0:0:0:0:0:1]",
    "[::ffff:127.0.0.1]",
    "[::ffff:7f00:1]",
    "[0:0:0:0:0:ffff:127.0.0.1]",
    "[::127.0.0.1]",
    "[64:ff9b::127.0.0.1]",
    "[64:ff9b::7f00:1]",
    "[64:ff9b:1::127.0.0.1]",
    "[2002:7f00:1::]",
    "[2002:7f00:0001::1]",
    "[2001:0:7f00:1::]",
    "[2001:0:808:808:0:0:80ff:fffe]",
]
# Refused whether private networks are allowed or not.
NEVER = [
    "169.254.169.254",
    "169.254.0.1",
    "2852039166",
    "0xa9fea9fe",
    "0251.0376.0251.0376",
    "169.254.43518",
    "169.16689662",
    "168.63.129.16",
    "100.100.100.200",
    "192.0.0.192",
    "0.0.0.0",
    "0",
    "0x0",
    "0.1.2.3",
    "224.0.0.1",
    "239.255.255.255",
    "240.0.0.1",
    "255.255.255.255",
    "[::]",
    "[fe80::1]",
    "[febf::1]",
    "[ff02::1]",
    "[fd00:ec2::254]",
    "[fd20:ce::254]",
    "[::ffff:169.254.169.254]",
    "[::ffff:a9fe:a9fe]",
    "[::169.254.169.254]",
    "[64:ff9b::a9fe:a9fe]",
    "[64:ff9b:1::a9fe:a9fe]",
    "[64:ff9b:1:a9fe:a9:fe00::]",
    "[2002:a9fe:a9fe::]",
    "[2001:0:a9fe:a9fe::]",
    "[2001:0:808:808:0:0:5601:5601]",
    "[::ffff:168.63.129.16]",
]
# Refused unless private networks are allowed.
NOT_GLOBAL = [
    "10.0.0.1",
    "10.255.255.255",
    "172.16.0.1",
    "172.31.255.255",
    "192.168.1.1",
    "100.64.0.1",
    "100.127.255.255",
    "198.18.0.1",
    "198.19.255.255",
    "192.0.2.1",
    "198.51.100.1",
    "203.0.113.1",
    "[fc00::1]",
    "[fd12:3456::1]",
    "[fec0::1]",
    "[2001:db8::1]",
    "[3fff::1]",
    "[100::1]",
    "[5f00::1]",
    "[4000::1]",
    "[::ffff:10.0.0.1]",
    "[64:ff9b::10.0.0.1]",
    "[64:ff9b:1::8.8.8.8]",
    "[2002:a00:1::]",
]
GLOBAL = [
    "8.8.8.8",
    "1.1.1.1",
    "172.15.255.255",
    "172.32.0.1",
    "100.63.255.255",
    "100.128.0.1",
    "169.253.1.1",
    "198.17.255.255",
    "[2606:4700::1111]",
    "[2a00:1450::1]",
    "[::ffff:8.8.8.8]",
    "[64:ff9b::8.8.8.8]",
    "[2002:808:808::1]",
    "example.com",
    "example.com.",
    "127.0.0.1.nip.io",
    "a_b.example",
    "1.2.3.4.example",
]
MALFORMED = [
    "1.2.3.4.5",
    "256.1.1.1",
    "127.0.0.256",
    "4294967296",
    "08.0.0.1",
    "1.2.3.0x",
    "1..1",
    "a.1",
    "%31%32%37.0.0.1",
    "127.0.0.1%00.example.com",
    "[fe80::1%25eth0]",
    "[fe80::1%eth0]",
    "[::1%25lo]",
    "[::1%lo]",
    "ex ample.com",
    "a..b",
    "",
]


@pytest.mark.parametrize("host", LOOPBACK + NEVER + NOT_GLOBAL + MALFORMED)
def test_this_host_is_refused(host: str) -> None:
    assert check_url(f"http://{host}/x", STRICT) is not None


@pytest.mark.parametrize("host", GLOBAL)
def test_this_host_is_reachable(host: str) -> None:
    assert check_url(f"https://{host}/x", STRICT) is None


@pytest.mark.parametrize("host", NEVER)
def test_allowing_private_networks_does_not_open(host: str) -> None:
    assert check_url(f"http://{host}/x", PRIVATE) is not None
    everything = NetworkPolicy(allow_private=(ip_network("0.0.0.0/0"), ip_network("::/0")))
    assert check_url(f"http://{host}/x", everything) is not None


@pytest.mark.parametrize("host", [h for h in NOT_GLOBAL if h != "[64:ff9b:1::8.8.8.8]"] + ["127.0.0.1", "[::1]"])
def test_allowing_private_networks_opens(host: str) -> None:
    assert check_url(f"http://{host}/x", PRIVATE) is None


@pytest.mark.parametrize(
    "host", ["2130706433", "0x7f.1", "127.1", "0177.0.0.1", "127.0.0.1.", "134744072", "0x08080808"]
)
def test_an_unusual_spelling_is_refused_even_where_the_address_is_allowed(host: str) -> None:
    reason = check_url(f"http://{host}/x", PRIVATE)
    assert reason is not None
    assert "unusual spelling" in reason


@pytest.mark.parametrize("host", [h for h in LOOPBACK[:16] if not h.endswith(".")])
def test_the_spelling_is_what_the_system_reads_as_loopback(host: str) -> None:
    """Without this the rows above would prove nothing: each really is an attempt on this host."""
    assert IPv4Address(socket.inet_aton(host)).is_loopback


@pytest.mark.parametrize(
    "url", ["ftp://example.com/", "file:///etc/passwd", "//example.com/", "http:///x", "example.com"]
)
def test_only_http_urls_with_a_host_can_be_reached(url: str) -> None:
    assert check_url(url, PRIVATE) is not None


@pytest.mark.parametrize(
    "url", ["http://a@example.com/", "http://a:b@example.com/", "http://:b@example.com/", "http://example.com\\@a/"]
)
def test_a_user_part_is_refused(url: str) -> None:
    assert check_url(url, PRIVATE) is not None


@pytest.mark.parametrize(
    "url", ["http://example.com:99999/", "http://example.com:x/", "http://example.com:0/", "http://8.8.8.8:0/"]
)
def test_a_port_that_is_none_is_refused(url: str) -> None:
    assert check_url(url, PRIVATE) is not None


@pytest.mark.parametrize("port", sorted(REFUSED_PORTS))
def test_a_port_of_another_service_is_refused_unless_allowed(port: int) -> None:
    for host in ("example.com", "8.8.8.8"):
        assert check_url(f"http://{host}:{port}/", PRIVATE) is not None
        assert check_url(f"http://{host}:{port}/", NetworkPolicy(allowed_ports=frozenset({port}))) is None
    assert judge("8.8.8.8", port, STRICT) is not None


def test_only_the_listed_private_networks_open() -> None:
    policy = NetworkPolicy(allow_private=private_networks(["10.1.0.0/16", "fd12::/16"]))
    assert judge("10.1.2.3", 80, policy) is None
    assert judge("fd12::1", 80, policy) is None
    assert judge("10.2.0.1", 80, policy) is not None
    assert judge("127.0.0.1", 80, policy) is not None
    assert judge("::ffff:10.1.2.3", 80, policy) is None


def test_a_network_that_is_none_is_named() -> None:
    with pytest.raises(ValueError, match=r"10\.0\.0\.1/8"):
        private_networks(["10.0.0.1/8"])


@pytest.mark.parametrize("address", ["127.0.0.1", "::ffff:127.0.0.1"])
@pytest.mark.parametrize("listener", [("127.0.0.1", 8080), ("0.0.0.0", 8080), ("::", 8080)])
def test_our_own_listener_is_refused_by_every_name_of_it(address: str, listener: tuple[str, int]) -> None:
    policy = NetworkPolicy(allow_private=True, own_listeners=frozenset({listener}))
    assert judge(address, 8080, policy) is not None
    assert judge(address, 8081, policy) is None


def test_an_address_of_this_host_is_known() -> None:
    assert is_this_host(ip_address("127.0.0.1"))
    assert not is_this_host(ip_address("203.0.113.77"))


@pytest.mark.parametrize("address", ["example.com", "127.1", "fe80::1%eth0", "", "8.8.8.8 "])
def test_judge_takes_addresses_only(address: str) -> None:
    assert judge(address, 80, PRIVATE) is not None


@given(st.ip_addresses(v=4))
def test_what_passes_is_global_for_python_too_v4(address: IPv4Address) -> None:
    assert address.is_global or judge(address, 443, STRICT) is not None


@given(
    st.one_of(st.ip_addresses(v=6), st.ip_addresses(v=6, network="2000::/12"), st.ip_addresses(v=6, network="::/16"))
)
def test_what_passes_is_global_for_python_too_v6(address: IPv6Address) -> None:
    assert address.is_global or address.ipv4_mapped or judge(address, 443, STRICT) is not None


@given(st.ip_addresses(v=4), st.sampled_from(["::ffff:{}", "::{}", "64:ff9b::{}", "64:ff9b:1::{}"]))
def test_an_embedded_address_never_passes_where_the_inner_one_does_not(inner: IPv4Address, form: str) -> None:
    if judge(inner, 443, PRIVATE) and int(inner):
        assert judge(form.format(inner), 443, PRIVATE) is not None or (form == "::{}" and int(inner) == 1)


@given(
    st.integers(0, 2**32 - 1),
    st.integers(1, 4),
    st.lists(st.sampled_from(["{:d}", "0{:o}", "{:#x}", "{:#X}"]), min_size=4, max_size=4),
)
def test_spellings_are_read_as_inet_aton_reads_them(number: int, parts: int, forms: list[str]) -> None:
    octets = list(number.to_bytes(4, "big"))
    numbers = [*octets[: parts - 1], int.from_bytes(bytes(octets[parts - 1 :]), "big")]
    spelling = ".".join(form.format(value) for form, value in zip(forms, numbers, strict=False))
    assert spelled_address(spelling) == IPv4Address(socket.inet_aton(spelling)) == IPv4Address(number)
