"""A TCP proxy before a server: it cuts connections, or keeps a request back, at a chosen moment of the conversation."""

from __future__ import annotations

import asyncio
import contextlib
import enum
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from urllib.parse import urlsplit


class Cut(enum.Enum):
    """When the next connection that speaks is cut."""

    BEFORE_REQUEST = "the server never hears it"
    BEFORE_ANSWER = "the server does it and nobody hears of it"


class Proxy:
    """Forwards bytes; ``cuts`` is what happens to the next requests, one element for each.

    With ``falls`` set, the first cut takes the whole server away: see ``go_down``. ``late`` is a part of the next
    request that is kept back: its client is cut, and the server hears it when it is ``let_go``, as on a slow network.
    With ``holds_ends`` set, a client hears what its server said last, but not that the connection has ended.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = (host, port)
        self.cuts: list[Cut] = []
        self.made = 0
        self.falls = False
        self.late: bytes | None = None
        self.holds_ends = False
        self.held = 0
        self._let_go = asyncio.Event()
        self._kept: list[asyncio.Future[None]] = []
        self._down = False
        self._ends: set[asyncio.StreamWriter] = set()
        self._served: set[asyncio.Future[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Forward one connection until either side ends or it is cut."""
        ends = {writer}
        served: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._served.add(served)
        try:
            if not self._down:
                up_reader, up_writer = await asyncio.open_connection(*self._server)
                ends.add(up_writer)
                if not self._down:  # it may have gone down, or been closed, meanwhile
                    self._ends |= ends
                    await self._forward(reader, writer, up_reader, up_writer, served)
        finally:
            for end in ends:
                end.close()
                with contextlib.suppress(OSError):
                    await end.wait_closed()
            self._ends -= ends
            self._served.remove(served)
            served.set_result(None)

    async def _forward(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        up_reader: asyncio.StreamReader,
        up_writer: asyncio.StreamWriter,
        served: asyncio.Future[None],
    ) -> None:
        drop_answer = False

        async def requests() -> None:
            nonlocal drop_answer
            while data := await reader.read(65536):
                if self.late is not None and self.late in data:
                    self.late, drop_answer = None, True
                    self._kept.append(served)
                    writer.close()
                    await self._let_go.wait()
                    up_writer.write(data)
                    await asyncio.shield(served)  # the client has gone, and the server has yet to answer
                    return
                if self.cuts:
                    cut = self.cuts.pop(0)
                    self.made += 1
                    if cut is Cut.BEFORE_REQUEST:
                        return
                    drop_answer = True
                up_writer.write(data)
                await up_writer.drain()

        async def answers() -> None:
            while data := await up_reader.read(65536):
                if drop_answer:
                    if self.falls:
                        self.go_down()
                    return
                writer.write(data)
                await writer.drain()
            if self.holds_ends:
                self.held += 1
                await asyncio.get_running_loop().create_future()  # the client leaves, or the proxy is closed

        sides = [asyncio.create_task(requests()), asyncio.create_task(answers())]
        try:
            await asyncio.wait(sides, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for side in sides:
                side.cancel()
            await asyncio.gather(*sides, return_exceptions=True)

    @property
    def keeps(self) -> int:
        """How many requests were kept back."""
        return len(self._kept)

    async def let_go(self) -> None:
        """Let the server hear what was kept back; returns when it has answered all of it."""
        self._let_go.set()
        await asyncio.gather(*self._kept)

    def go_down(self) -> None:
        """Cut every connection and accept no more, until ``come_back``."""
        self._down = True
        for end in self._ends:
            end.close()

    def come_back(self) -> None:
        """Forward again."""
        self._down = self.falls = False

    async def close(self) -> None:
        """Cut every connection and wait until nothing is left of them."""
        self.go_down()
        await asyncio.gather(*self._served)


@asynccontextmanager
async def proxy_before(url: str) -> AsyncIterator[tuple[Proxy, str]]:
    """Serve a proxy before the server of a URL; gives it, and the URL that goes through it."""
    parts = urlsplit(url)
    proxy = Proxy(parts.hostname or "127.0.0.1", parts.port or 5432)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    user = parts.netloc.rpartition("@")[0]
    netloc = f"{user}@127.0.0.1:{port}" if user else f"127.0.0.1:{port}"
    # TLS cannot be looked into, and the proxy counts requests.
    query = "&".join(filter(None, [parts.query, "sslmode=disable", "gssencmode=disable"]))
    try:
        yield proxy, parts._replace(netloc=netloc, query=query).geturl()
    finally:
        server.close()
        await proxy.close()
