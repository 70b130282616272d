"""WebSockets of random frames, some broken: what the upstream gets is whole, in order and masked; each leaves one leaf."""

from __future__ import annotations

import random
from collections import Counter
from contextlib import suppress

from tests.wire.websocket_rig import BINARY, CLOSE, CONT, PING, Got, SocketRig, close, frame, sent


def one(rig: SocketRig, chance: random.Random) -> str:
    """One WebSocket from beginning to end; gives how it ended."""
    rig.over = chance.choice(("h1", "h2"))
    pair = rig.open()
    said = bytearray()
    raw = bytearray()
    for _ in range(chance.randrange(1, 6)):
        parts = [chance.randbytes(chance.choice((0, 1, 125, 126, 5000))) for _ in range(chance.randrange(1, 4))]
        for at, part in enumerate(parts):
            raw += sent(CONT if at else BINARY, part, fin=at == len(parts) - 1)
            if chance.random() < 0.3:
                raw += sent(PING, b"p")
            said += part
    is_broken = chance.random() < 0.5
    if is_broken:
        raw[chance.randrange(chance.choice((6, len(raw))))] ^= 1 << chance.randrange(8)  # mostly in a head
    raw += sent(CLOSE, close(4000, b"over"))
    sizes = (1, 7, 100, 4096, 100_000)
    at = 0
    while at < len(raw):
        size = chance.choice(sizes) if len(raw) - at < 300 else chance.choice(sizes[2:])
        try:
            pair.client.send(bytes(raw[at : at + size]))
        except OSError:
            break  # it was cut at what is broken
        at += size
    heard = bytearray()
    got = None
    pair.upstream.tls.settimeout(0.5 if is_broken else 10)
    with suppress(*([TimeoutError] if is_broken else [])):  # a length that grew is waited for
        while (got := pair.upstream.frame()).opcode != CLOSE:
            assert got.masked
            if got.opcode in (BINARY, CONT):
                heard += got.payload
    assert is_broken or (got == Got(CLOSE, close(4000, b"over"), True, True) and heard == said)
    assert len(heard) <= len(raw)
    if got is not None and got.opcode == CLOSE and got.payload[:2] != close(1001):
        pair.upstream.send(frame(CLOSE, got.payload))
    else:
        pair.client.end()
    leaf = rig.record(pair.decision)
    rig.clear()
    return f"{rig.over} {leaf.get('rule.id', 'closed')}"


def campaign(rig: SocketRig, count: int, seed: int) -> Counter[str]:
    """So many, one after the other."""
    chance = random.Random(seed)
    return Counter(one(rig, chance) for _ in range(count))
