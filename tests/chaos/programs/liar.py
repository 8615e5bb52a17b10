"""A Redis that lies, as a process before a real one: ``python -I -S liar.py PORT SEED FILE`` prints its own port.

SIGUSR1 begins the lies, SIGUSR2 ends them. A lie is told in place of a message of a channel: it is dropped, told three
times, kept back until after the next one, or replaced by an invented one. How many were told stands in FILE, in eight
bytes. Everything else is passed on as it is. Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import random
import signal
import sys

CHUNK = 1 << 16
PR_SET_PDEATHSIG = 1
AGGREGATES = b"*>~%"
HEADS = (b"0", b"1", b"-5", b"999999999999", b"9223372036854775807", b"nonsense", b"")
INVENTED = (*HEADS, b"1 gate 1 1", b"1 gate 0 2147483647", b"999999999999 gate 1 1", b"1 gate -1 x")


def frame(data: bytes, at: int = 0) -> int | None:
    """Return where the value of the Redis protocol that begins at ``at`` ends; None while it is incomplete."""
    line = data.find(b"\r\n", at)
    if line < 0:
        return None
    kind, end = data[at : at + 1], line + 2
    if kind in (b"$", b"=", b"!"):
        length = int(data[at + 1 : line])
        end += max(0, length + 2) if length >= 0 else 0
        return end if end <= len(data) else None
    if kind in AGGREGATES:
        for _ in range(max(0, int(data[at + 1 : line])) * (2 if kind == b"%" else 1)):
            found = frame(data, end)
            if found is None:
                return None
            end = found
    return end


class Liar:
    """Decides what becomes of each message."""

    def __init__(self, seed: int, file: int) -> None:
        self.lying = False
        self._random = random.Random(seed)
        self._file = file
        self._told = 0
        self._kept = b""

    def passed(self, value: bytes) -> bytes:
        """Return what the client gets in place of a value that the server sent."""
        if b"\r\nmessage\r\n" not in value[:24] or not self.lying:
            kept, self._kept = self._kept, b""
            return value + kept
        self._told += 1
        os.pwrite(self._file, self._told.to_bytes(8, "little"), 0)
        lie = self._random.randrange(4)
        if lie == 0:
            return b""
        if lie == 1:
            return value * 3
        if lie == 2:
            kept, self._kept = self._kept, value
            return kept
        return self._invent(value)

    def _invent(self, value: bytes) -> bytes:
        """Say something else on the same channel: the last part of the value is what was said."""
        said = value[:-2].rpartition(b"\r\n")[2]
        before = value[: -len(b"$%d\r\n%s\r\n" % (len(said), said))]
        new = self._random.choice(INVENTED)
        return before + b"$%d\r\n%s\r\n" % (len(new), new)


async def _pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, liar: Liar | None) -> None:
    held = b""
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            if liar is None:
                writer.write(data)
            else:
                held += data
                while held and (end := frame(held)) is not None:
                    writer.write(liar.passed(held[:end]))
                    held = held[end:]
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


async def main(port: int, seed: int, path: str) -> None:
    liar = Liar(seed, os.open(path, os.O_RDWR | os.O_CREAT))

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_pass_on(reader, far_writer, None), _pass_on(far_reader, writer, liar))

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGUSR1, lambda: setattr(liar, "lying", True))
    loop.add_signal_handler(signal.SIGUSR2, lambda: setattr(liar, "lying", False))
    loop.add_signal_handler(signal.SIGTERM, server.close)
    print(server.sockets[0].getsockname()[1], flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await server.serve_forever()


if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), sys.argv[3]))
