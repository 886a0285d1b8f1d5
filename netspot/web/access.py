"""Who may do what: the token, the session cookie, wrong guesses, and the Host header."""

from __future__ import annotations

import contextlib
import hashlib
import hmac
import ipaddress
import os
import secrets
import socket
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable
from pathlib import Path

from netspot.errors import ConfigError

WRONG_A_MINUTE = 5
PEERS = 256  # addresses whose wrong guesses are remembered; the one longest quiet is forgotten first
TOKEN_MIN = 16  # [character]

# Names below these are never delegated in the public DNS, so no stranger's page can point one of them here
# (RFC 6761, RFC 6762, RFC 8375, and what home routers hand out).
PRIVATE_SUFFIXES = tuple(".local .lan .home .home.arpa .internal .intranet .localdomain .localhost .fritz.box".split())


def token_paths(state_dir: str | None) -> list[Path]:
    """Where the token may be, best first: the state folder outlives a restart of the machine, the others do not."""
    if state_dir:
        return [Path(state_dir) / "token"]
    runtime = os.environ.get("XDG_RUNTIME_DIR")
    root = [Path("/run/netspot/token")] if os.geteuid() == 0 else []
    return root + ([Path(runtime) / "netspot" / "token"] if runtime else [])


def read_token(path: Path) -> str:
    """The token in ``path``. Raises OSError, or ConfigError for a file that holds none."""
    with path.open("rb") as file:
        text = file.read(1024).decode("utf-8", "replace").strip()
    if len(text) < TOKEN_MIN or not text.isascii() or not text.isprintable():
        raise ConfigError(f"{path}: holds no token ({TOKEN_MIN} or more printable ASCII characters); remove the file")
    return text


def ensure_token(state_dir: str | None, token: str | None = None) -> str | None:
    """The token of this machine, created with mode 0600 at the first start; None where no folder can be written.

    ``token``: the one to begin with, where the folder holds none.
    Raises ConfigError for a token, or a folder of tokens, that is there and cannot be used.
    """
    for path in token_paths(state_dir):
        try:
            return read_token(path)
        except FileNotFoundError:
            pass
        except NotADirectoryError:
            raise ConfigError(f"state.dir = {state_dir}: is no folder; name another, or remove that file") from None
        except OSError as error:
            hint = "let the user of netspot read it, or remove it and restart"
            raise ConfigError(f"{path}: the token cannot be read: {error.strerror}; {hint}") from None
        with contextlib.suppress(OSError):
            path.parent.mkdir(mode=0o755, exist_ok=True)
            return _create(path, token or secrets.token_urlsafe(24))
    return None


def _create(path: Path, token: str) -> str:
    try:
        fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError:  # another start was faster
        return read_token(path)
    with os.fdopen(fd, "w") as file:
        file.write(token + "\n")
    return token


class Guesses:
    """Wrong tokens by address, at most ``WRONG_A_MINUTE`` in any minute."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wrong: OrderedDict[str, deque[float]] = OrderedDict()

    def wait_s(self, peer: str) -> float:
        """How long ``peer`` must wait before its next guess is looked at [s]; 0: not at all."""
        times = self._wrong.get(network(peer))
        if times is None or len(times) < WRONG_A_MINUTE:
            return 0.0
        return max(0.0, times[0] + 60.0 - self._clock())

    def wrong(self, peer: str) -> None:
        key = network(peer)
        self._wrong.setdefault(key, deque(maxlen=WRONG_A_MINUTE)).append(self._clock())
        self._wrong.move_to_end(key)
        while len(self._wrong) > PEERS:
            self._wrong.popitem(last=False)


def network(peer: str) -> str:
    """The address, or the /64 of an IPv6 address: one household has one, and 2**64 addresses in it."""
    try:
        address = ipaddress.ip_address(peer.partition("%")[0])
    except ValueError:
        return peer
    return peer if address.version == 4 else str(ipaddress.ip_network((int(address), 64), strict=False))


def same(given: str, wanted: str) -> bool:
    """Whether two secrets are equal, in a time that tells nothing of where they differ."""
    return hmac.compare_digest(given.encode("utf-8", "surrogateescape"), wanted.encode())


def session(token: str) -> str:
    """What the login cookie holds: it proves that the token was known and does not give it away."""
    return hmac.new(token.encode(), b"netspot session", hashlib.sha256).hexdigest()


def own_names() -> frozenset[str]:
    """The names under which this machine knows itself."""
    name = socket.gethostname().lower()
    return frozenset({name, name.partition(".")[0], "localhost"})


def host_allowed(header: str, own: Iterable[str]) -> bool:
    """Whether a request for the host ``header`` is meant for this machine (against DNS rebinding).

    A stranger's page can reach us only under a name that the stranger controls in the public DNS. So an address is
    fine, and so are a name without a dot, a name of a private zone, and the names in ``own``.
    """
    name = _host_name(header)
    if name is None:
        return False
    if "." not in name or name in own or name.endswith(PRIVATE_SUFFIXES):
        return True
    try:
        ipaddress.ip_address(name)
    except ValueError:
        return False
    return True


def _host_name(header: str) -> str | None:
    host = header.strip().lower()
    if host.startswith("["):
        address, bracket, port = host[1:].partition("]")
        with contextlib.suppress(ValueError):
            if bracket and (not port or port[1:].isdigit()):
                return ipaddress.IPv6Address(address).exploded  # no dot: an address is always fine
        return None
    name, _, port = host.partition(":")
    if not name or (port and not port.isdigit()) or any(c in name for c in "/\\@ ,"):
        return None
    return name.rstrip(".") or None
