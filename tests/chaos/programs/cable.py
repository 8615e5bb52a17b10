"""A network cable as a process: ``python -I -S cable.py HOST PORT [BIND]`` prints its own port and forwards to there.

To cut the cable, freeze the process (SIGSTOP): the system goes on accepting connections and bytes, which go nowhere,
and nobody is told. To mend it, thaw the process: what was sent meanwhile arrives late, as it does on a real network.
Standard library only.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import sys

CHUNK = 1 << 16
PR_SET_PDEATHSIG = 1


async def _forward(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while data := await reader.read(CHUNK):
            writer.write(data)
            await writer.drain()
    with contextlib.suppress(OSError):
        writer.close()


async def main(host: str, port: int, bind: str) -> None:
    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            far_reader, far_writer = await asyncio.open_connection(host, port)
        except OSError:
            writer.close()
            return
        await asyncio.gather(_forward(reader, far_writer), _forward(far_reader, writer))

    server = await asyncio.start_server(serve, bind, 0, backlog=512)
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, server.close)
    print(server.sockets[0].getsockname()[1], flush=True)
    with contextlib.suppress(asyncio.CancelledError):
        await server.serve_forever()


if __name__ == "__main__":
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    asyncio.run(main(sys.argv[1], int(sys.argv[2]), (sys.argv[3:] or ["127.0.0.1"])[0]))
