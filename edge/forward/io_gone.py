"""What stands in place of a transport that is gone.

A connection and what it is made of refer to each other, so they stay until the collector comes; with a transport stays its
TLS, a quarter of a mebibyte that the collector knows nothing of. Whoever hears that its connection is lost lets go of it.
"""

from __future__ import annotations

import asyncio


class Gone(asyncio.Transport):
    """Closed, empty, and deaf."""

    def is_closing(self) -> bool:
        return True

    def get_write_buffer_size(self) -> int:
        return 0

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Nobody gets it."""

    def close(self) -> None:
        """It is."""

    def abort(self) -> None:
        """It is."""

    def pause_reading(self) -> None:
        """Nothing comes."""

    def resume_reading(self) -> None:
        """Nothing comes."""


GONE = Gone()
