"""The process that serves: one uvloop, and a supervisor that tells it what to do.

Life: build from what was inherited → say SERVING → prepare and commit as told → retire, perhaps → drain → exit 0.

Told by frames from the supervisor; SIGTERM alone makes it drain too, since systemd signals everybody at once. SIGINT is
left to the supervisor, which then tells. EOF of the supervisor's socket ends it, should the kernel's own signal have failed.
"""

from __future__ import annotations

import asyncio
import faulthandler
import pickle
import signal
from typing import Any

import uvloop

from edge.config.sources import Sources
from edge.errors import ConfigError, EdgeError
from edge.front import Deadlines
from edge.serve import heap
from edge.serve.messages import MAX_DOWN_BYTES, Decoder, Kind, Note, encode_note
from edge.serve.outline import digest
from edge.serve.pool import Boot
from edge.serve.serving import Serving
from pki.errors import PkiError

DRAIN_S = Deadlines().drain_s
_EXPECTED = (EdgeError, PkiError, OSError)
"""What may keep a configuration from being served; anything else is a bug, and the child's exit code 70 says so."""


def run(boot: Boot) -> int:
    """The body of the child; the result is its exit code (design §7)."""
    heap.keep_heap()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    boot.report.adopt_logging()
    faulthandler.enable()  # should the loop hang, the watchdog's SIGABRT shows where: files and lines, no values
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(_main(boot))


async def _main(boot: Boot) -> int:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, stop.set)
    loop.set_exception_handler(lambda _, context: _unexpected(boot, context))
    reader, writer = await asyncio.open_connection(sock=boot.channel)
    try:
        serving = await Serving.open(boot)
    except _EXPECTED as exc:
        code = 1 if isinstance(exc, ConfigError) else 4
        writer.write(encode_note(Kind.FAILED, Note(detail=_one_line(exc), exit_code=code)))
        await writer.drain()
        return code
    heap.settle()
    writer.write(encode_note(Kind.SERVING, Note(bundle_hash=serving.generation.digest)))
    told = asyncio.Event()
    tasks = {
        loop.create_task(_obey(reader, writer, serving, told), name="obey"),
        loop.create_task(stop.wait(), name="stop"),
        loop.create_task(_retire(told, serving), name="retire"),
    }
    admin = serving.admin_task
    ended, _ = await asyncio.wait(tasks | ({admin} if admin else set()), return_when=asyncio.FIRST_COMPLETED)
    clean = await serving.drain()
    if not clean:
        boot.report.warning("requests were cut at the end of the drain")
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    writer.close()
    return 70 if any(task.exception() for task in ended) else 0


async def _retire(told: asyncio.Event, serving: Serving) -> None:
    await told.wait()
    await serving.retire()


async def _obey(
    reader: asyncio.StreamReader, writer: asyncio.StreamWriter, serving: Serving, retire: asyncio.Event
) -> None:
    """Do what the supervisor says; returns when it says drain, or says nothing any more."""
    decoder = Decoder(MAX_DOWN_BYTES)
    while received := await reader.read(1 << 18):
        for kind, payload in decoder.feed(received):
            if kind is Kind.PREPARE:
                # Written by the process that forked us, over a socketpair nobody else holds.
                writer.write(await _prepare(serving, pickle.loads(payload)))  # noqa: S301
            elif kind is Kind.COMMIT:
                writer.write(encode_note(Kind.COMMITTED, Note(bundle_hash=await serving.commit())))
            elif kind is Kind.ABORT:
                serving.abort()
            elif kind is Kind.RETIRE:
                retire.set()
            elif kind is Kind.DRAIN:
                return


async def _prepare(serving: Serving, sources: Sources) -> bytes:
    """The answer to PREPARE."""
    try:
        return encode_note(Kind.PREPARED, Note(bundle_hash=await serving.prepare(sources)))
    except _EXPECTED as exc:
        return encode_note(Kind.FAILED, Note(bundle_hash=digest(sources), detail=_one_line(exc)))


def _unexpected(boot: Boot, context: dict[str, Any]) -> None:
    """What no task caught. A broken connection is not news; values are not shown, since one may be a secret."""
    exc = context.get("exception")
    if exc is None:
        boot.report.error("unexpected", cause=context.get("message"))
    elif not isinstance(exc, OSError):
        boot.report.unexpected(exc)


def _one_line(exc: BaseException) -> str:
    return " ".join(str(exc).split()) or type(exc).__name__
