"""The listening socket, and sentences that help when it can't be had."""

import socket


def bind(host: str, port: int) -> socket.socket:
    """The listening socket. Raises OSError with a sentence that helps."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle's delay off (40 ms an answer) only where the protocol is said.
    sock = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        sock.bind((host, port))
        # Not later: until it listens, a second process can bind the same port, and clients told of it are refused.
        sock.listen(2048)
    except OSError as e:
        sock.close()
        if e.errno in (48, 98, 10048):
            raise OSError(f"port {port} on {host} is taken: choose another with --port, or 0 for a free one") from None
        if e.errno in (13, 1):
            raise OSError(
                f"port {port} can't be opened without more rights: choose one above 1023 with --port"
            ) from None
        raise OSError(f"can't listen on {host}: {e.strerror}; --host takes an address of this machine") from None
    sock.set_inheritable(True)
    return sock
