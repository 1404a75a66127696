"""Where a judge's server is, and the key that opens it.

In: an address and the name of an environment variable. Out: both checked, so that a key goes to one host only, over
TLS or within this machine. No error shows an address that may hold a secret, nor any part of a key.
"""

from __future__ import annotations

import ipaddress
import os
import re
from urllib.parse import urlsplit

from demur.errors import InputError

_PATH = re.compile(r"[A-Za-z0-9._~/:+-]*")
_HOST = re.compile(r"[\w.-]+|[0-9a-fA-F:.]+")
_VARIABLE = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_KEY = re.compile(r"[!-~]+")  # what is printed in ASCII, white space not among it

_LIKE = "give one like http://127.0.0.1:8000/v1"


def checked_address(address: str) -> str:
    """The address without a slash at its end, once it is known to hold no secret.

    Raises `InputError` for anything but ``http(s)://HOST[:PORT][/PATH]``: no user, password, query or fragment.
    """
    if "@" in address or re.search("%40", address, re.IGNORECASE):
        raise InputError("the judge's address holds a name or key before '@'; give the key by --judge-key-env")
    if re.search(r"[?#;=]|%3f|%23|%3b|%3d", address, re.IGNORECASE):
        raise InputError(
            "the judge's address holds a query or fragment ('?', '#', ';' or '='), which may be a key; give the "
            "address alone, and the key by --judge-key-env"
        )
    try:
        parts = urlsplit(address)
        port = parts.port
    except ValueError:
        raise InputError(f"the judge's address is not valid; {_LIKE}") from None
    usable = address.isprintable() and not re.search(r"\s", address) and port != 0
    if not usable or parts.scheme not in ("http", "https") or not _HOST.fullmatch(parts.hostname or ""):
        raise InputError(f"the judge's address {address!r} is not valid; {_LIKE}")
    if not _PATH.fullmatch(parts.path):
        raise InputError(f"the path of the judge's address at {parts.hostname} is not valid; {_LIKE}")
    return address.rstrip("/")


def is_loopback(address: str) -> bool:
    """Whether the host of a checked address is this machine: 127.0.0.0/8, ::1 or localhost."""
    host = urlsplit(address).hostname or ""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def read_key(variable: str) -> str:
    """The key in an environment variable, white space around it removed.

    Raises `InputError` where there is none, or where it holds what no key and no HTTP header can hold.
    """
    # Who gives the key itself in place of the variable's name must not find it in an error.
    shown = variable if _VARIABLE.fullmatch(variable) else "given for the judge's key"
    try:
        key = os.environ.get(variable, "").strip()
    except ValueError:  # a name that no variable can have
        key = ""
    if not key:
        raise InputError(f"the environment variable {shown} is not set or empty; export the judge's key in it")
    if not _KEY.fullmatch(key):
        raise InputError(
            f"the key in the environment variable {shown} holds white space, control or non-ASCII characters; "
            "export the key as it was issued"
        )
    return key


def require_private(address: str) -> None:
    """Raise `InputError` where a key sent to the checked `address` could be read on its way."""
    if urlsplit(address).scheme != "https" and not is_loopback(address):
        raise InputError(
            f"{address}: a key would travel unencrypted; give an https:// address, or leave out the key's variable"
        )
