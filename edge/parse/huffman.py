"""The Huffman code of HPACK strings (RFC 7541 §5.2 and Appendix B), decoding only: what we send is not compressed.

The code is canonical, so its 257 lengths are the whole of it. Decoding walks byte by byte: a step is (place in the tree,
byte) → (symbols that ended, place behind it), worked out when it is first met. A string seen before is not walked again.
"""

from __future__ import annotations

from edge.errors import MalformedRequest

# Of the codes for the bytes 0 to 255 and for the end of the string, in hexadecimal pairs.
_LENGTHS = bytes.fromhex(
    "0d171c1c1c1c1c1c1c181e1c1c1e1c1c1c1c1c1c1c1c1e1c1c1c1c1c1c1c1c1c060a0a0c0d06080b0a0a080b080606060505050606060606"
    "060607080f060c0a0d06070707070707070707070707070707070707070707070807080d130d0e060f050605060506060605070706060605"
    "06070605050607070707070f0b0e0d1c14161414161616171617171717171817181816171817171717151617161717181615141616171715"
    "1716161815161717151516151716171714161616171616171a1a1413161716191a1a1a1b1b1a181913151a1b1b1a1b1815151a1a1c1b1b1b"
    "14181415161515171616191918181a171a1b1a1a1b1b1b1b1b1c1b1b1b1b1b1a1e"
)
_END = 256
_MAX_KNOWN = 2048
_MAX_KNOWN_BYTES = 1024
"""Of an encoded string that is remembered: 6 MiB in all at the worst."""

_steps: dict[int, tuple[bytes, int]] = {}
_known: dict[bytes, bytes] = {}


def _tree() -> list[list[int]]:
    """Inner nodes as [next for 0, next for 1]; a symbol is written as its complement, which is negative."""
    nodes = [[0, 0]]
    code = length = 0
    for symbol in sorted(range(len(_LENGTHS)), key=lambda symbol: (_LENGTHS[symbol], symbol)):
        code <<= _LENGTHS[symbol] - length
        length = _LENGTHS[symbol]
        at = 0
        for shift in range(length - 1, 0, -1):
            bit = code >> shift & 1
            if not nodes[at][bit]:
                nodes.append([0, 0])
                nodes[at][bit] = len(nodes) - 1
            at = nodes[at][bit]
        nodes[at][code & 1] = ~symbol
        code += 1
    return nodes


_NODES = _tree()


def _paddings() -> frozenset[int]:
    """Where a string may end: behind at most seven ones, the beginning of the code for its end."""
    ends, at = {0}, 0
    for _ in range(7):
        at = _NODES[at][1]
        ends.add(at)
    return frozenset(ends)


_ENDS = _paddings()


def _walk(at: int) -> tuple[bytes, int]:
    """Work out the step `place << 8 | byte`."""
    place = at >> 8
    symbols = bytearray()
    for shift in range(7, -1, -1):
        place = _NODES[place][at >> shift & 1]
        if place == ~_END:
            raise MalformedRequest("hpack-huffman")
        if place < 0:
            symbols.append(~place)
            place = 0
    step = _steps[at] = bytes(symbols), place
    return step


def decode(raw: bytes) -> bytes:
    """The string that `raw` stands for.

    Raises: MalformedRequest; the code of its end inside, or padding that is too long or not of ones.
    """
    known = _known.get(raw)
    if known is not None:
        return known
    place = 0
    found: list[bytes] = []
    for byte in raw:
        at = place << 8 | byte
        symbols, place = _steps.get(at) or _walk(at)
        found.append(symbols)
    if place not in _ENDS:
        raise MalformedRequest("hpack-huffman")
    text = b"".join(found)
    if len(raw) <= _MAX_KNOWN_BYTES:
        if len(_known) >= _MAX_KNOWN:
            _known.clear()
        _known[raw] = text
    return text
