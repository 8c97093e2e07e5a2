"""Which requests the server answers: those of its own page, under an address that is its own.

A page of another site may send requests to a server on this machine. It can do so under its own
name, which it has pointed at 127.0.0.1 (DNS rebinding), or across origins, where the browser says
so in `Origin` (RFC 6454) and `Sec-Fetch-Site` (W3C Fetch Metadata).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Collection, Mapping
from urllib.parse import urlsplit

LOCAL = "localhost"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches a server that binds to `host`, a name or an address."""
    if host == LOCAL:
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def is_own(host: str | None, names: Collection[str]) -> bool:
    """Whether the header `Host` is an IP address, localhost or one of the server's `names`.

    An address cannot be pointed elsewhere, so no other site has it as its name.
    """
    name = _name(host)
    if name is None:
        return False
    if name in {LOCAL, *(known.lower() for known in names)}:
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def is_foreign(headers: Mapping[str, str]) -> bool:
    """Whether a browser says that a request comes from a page of another origin.

    `headers` are by lower-case names. What is no browser says neither.
    """
    if headers.get("sec-fetch-site", "none") not in ("same-origin", "none"):
        return True
    origin = headers.get("origin")
    return origin is not None and origin.lower() != f"http://{headers.get('host', '').lower()}"


def _name(host: str | None) -> str | None:
    """The lower-case name or address of a `Host`, without port and brackets; None for none."""
    if not host or set(host) & set("@/?#\\"):
        return None
    try:
        name = urlsplit(f"//{host}").hostname
    except ValueError:
        return None
    return name.rstrip(".") if name else None
