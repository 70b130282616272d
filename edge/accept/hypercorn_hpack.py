"""Header blocks of the `h2` library that are none end the connection with COMPRESSION_ERROR, as RFC 9113 §4.3 asks."""

from __future__ import annotations

from typing import Any

import h2.errors
import h2.exceptions
from hpack import Decoder, HPACKError, OversizedHeaderListError


class BrokenBlock(h2.exceptions.ProtocolError):
    """No header block: from here on the two tables would differ (RFC 9113 §4.3). The library says PROTOCOL_ERROR."""

    error_code = h2.errors.ErrorCodes.COMPRESSION_ERROR


class StrictDecoder(Decoder):
    """The library's, with such an error."""

    def decode(self, data: bytes, raw: bool = False) -> Any:
        try:
            return super().decode(data, raw)
        except OversizedHeaderListError:
            raise
        except HPACKError as exc:
            raise BrokenBlock(str(exc)) from exc
