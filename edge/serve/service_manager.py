"""What is said to the service manager (sd_notify), so that `systemctl start` returns when requests are decided and recorded.

    READY=1                          after the `ready …` line, and after a reload by SIGHUP, whatever came of it
    RELOADING=1 MONOTONIC_USEC=…     SIGHUP was taken up (Type=notify-reload, systemd ≥ 253)
    STOPPING=1                       the drain began
    STATUS=…                         which bundle serves; `systemctl status` shows it

Datagrams to the socket that `$NOTIFY_SOCKET` names. The variable is taken out of the environment: children have nothing
to say to the manager. Without it, and when the manager is gone, nothing happens: serving does not depend on being watched.
"""

from __future__ import annotations

import socket
import time
from collections.abc import MutableMapping

_VARIABLE = "NOTIFY_SOCKET"


class ServiceManager:
    """The supervisor's side of one socket."""

    def __init__(self, address: str | None) -> None:
        self._address = address

    @classmethod
    def take(cls, environ: MutableMapping[str, str]) -> ServiceManager:
        """Read the variable and remove it. `@name` is an abstract address; anything but it and a path is not for us."""
        address = environ.pop(_VARIABLE, "")
        if address.startswith("@"):
            return cls("\0" + address[1:])
        return cls(address if address.startswith("/") else None)

    def ready(self, bundle_hash: str) -> None:
        self._say("READY=1", _status(bundle_hash))

    def serving(self, bundle_hash: str) -> None:
        """Another bundle was applied."""
        self._say(_status(bundle_hash))

    def reloading(self) -> None:
        self._say("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")

    def stopping(self) -> None:
        self._say("STOPPING=1", "STATUS=draining")

    def _say(self, *lines: str) -> None:
        if self._address is None:
            return
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
                manager.setblocking(False)
                manager.sendto("\n".join(lines).encode(), self._address)
        except OSError:
            pass  # a manager that does not listen must not stop what it manages


def _status(bundle_hash: str) -> str:
    return f"STATUS=serving bundle {bundle_hash[:16]}"
