"""TCP proxies that break things between a client and a server, on threads of their own."""

from __future__ import annotations

import contextlib
import os
import selectors
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final
from urllib.parse import urlsplit

import psycopg

CHUNK: Final = 65536


def through(url: str, address: tuple[str, int]) -> str:
    """Return the URL with another host and port."""
    parts = urlsplit(url)
    user = f"{parts.netloc.rpartition('@')[0]}@" if "@" in parts.netloc else ""
    return parts._replace(netloc=f"{user}{address[0]}:{address[1]}").geturl()


class Wire:
    """Forwards bytes until it is cut: then both ends stay connected and hear nothing more, as behind a dead switch."""

    def __init__(self, url: str, host: str = "127.0.0.1") -> None:
        parts = urlsplit(url)
        self._target = (parts.hostname or "127.0.0.1", parts.port or 5432)
        self._listener = socket.create_server((host, 0))
        self.url = through(url, self._listener.getsockname()[:2])
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._wake_read, self._wake_write = os.pipe()
        self._selector.register(self._wake_read, selectors.EVENT_READ)
        self._sockets: list[socket.socket] = [self._listener]
        self._cut = threading.Event()
        self._closing = False
        self._thread = threading.Thread(target=self._run, name="wire")
        self._thread.start()

    def cut(self) -> None:
        """Forward nothing from now on."""
        self._cut.set()

    def mend(self) -> None:
        """Forward again what comes from now on."""
        self._cut.clear()

    def close(self) -> None:
        """End everything."""
        self._closing = True
        os.write(self._wake_write, b".")
        self._thread.join()
        for each in self._sockets:
            each.close()
        self._selector.close()
        os.close(self._wake_read)
        os.close(self._wake_write)

    def _run(self) -> None:
        while not self._closing:
            for key, _ in self._selector.select():
                if key.fileobj is self._listener:
                    self._accept()
                elif isinstance(key.fileobj, socket.socket):
                    self._forward(key.fileobj, key.data)

    def _accept(self) -> None:
        client, _ = self._listener.accept()
        server = socket.create_connection(self._target)
        self._sockets += [client, server]
        self._selector.register(client, selectors.EVENT_READ, server)
        self._selector.register(server, selectors.EVENT_READ, client)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        try:
            data = source.recv(CHUNK)
        except OSError:
            data = b""
        if self._cut.is_set():
            if not data:
                self._selector.unregister(source)
            return
        if data:
            with contextlib.suppress(OSError):
                target.sendall(data)
            return
        self._selector.unregister(source)
        with contextlib.suppress(OSError):
            target.shutdown(socket.SHUT_WR)


@contextmanager
def wire(url: str, host: str = "127.0.0.1") -> Iterator[Wire]:
    """Give a wire to a server for the length of the block."""
    found = Wire(url, host)
    try:
        yield found
    finally:
        found.close()


class TransactionPooler:
    """What a pooler in transaction mode does: few sessions of the server, handed to whichever client begins next."""

    def __init__(self, url: str, sessions: int) -> None:
        self._url = url
        self._idle: list[psycopg.Connection[object]] = [
            psycopg.connect(url, autocommit=True, sslmode="disable", gssencmode="disable") for _ in range(sessions)
        ]
        self._free = threading.Condition()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = through(url, self._listener.getsockname()[:2])
        self._clients: list[socket.socket] = []
        self._threads = [threading.Thread(target=self._accept, name="pooler")]
        self._threads[0].start()
        self._sessions = list(self._idle)

    def close(self) -> None:
        """End everything."""
        # Shutting down wakes the thread that accepts; closing alone does not.
        self._listener.shutdown(socket.SHUT_RDWR)
        self._threads[0].join()
        self._listener.close()
        for client in self._clients:
            with contextlib.suppress(OSError):
                client.shutdown(socket.SHUT_RDWR)
        for thread in self._threads[1:]:
            thread.join()
        for session in self._sessions:
            session.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            self._clients.append(client)
            thread = threading.Thread(target=self._serve, args=(client,), name="pooled client")
            self._threads.append(thread)
            thread.start()

    def _serve(self, client: socket.socket) -> None:
        with client, contextlib.suppress(OSError, EOFError):
            while self._startup(client) is None:
                client.sendall(b"N")
            client.sendall(_message(b"R", struct.pack("!i", 0)))
            client.sendall(_message(b"S", b"client_encoding\0UTF8\0") + _message(b"S", b"server_version\x0016.0\0"))
            client.sendall(_message(b"K", struct.pack("!ii", 4711, 1)) + _message(b"Z", b"I"))
            self._transactions(client)

    @staticmethod
    def _startup(client: socket.socket) -> bytes | None:
        """Read the first packet; None when it asks for encryption."""
        (length,) = struct.unpack("!i", _exactly(client, 4))
        packet = _exactly(client, length - 4)
        return None if struct.unpack("!i", packet[:4])[0] in (80877103, 80877104) else packet

    def _transactions(self, client: socket.socket) -> None:
        session: psycopg.Connection[object] | None = None
        try:
            while True:
                kind, request = _read_message(client)
                if kind == b"X":
                    return
                if session is None:
                    session = self._take()
                os.write(session.fileno(), request)
                if kind in (b"Q", b"S"):
                    ready = self._answer(session.fileno(), client)
                    if ready[-1:] == b"I":
                        self._give_back(session)
                        session = None
                    # Afterwards: a client that is answered may begin elsewhere at once, and must find the session free.
                    client.sendall(ready)
        finally:
            if session is not None:
                self._give_back(session)

    @staticmethod
    def _answer(server: int, client: socket.socket) -> bytes:
        """Pass the answer on up to the statement's end, which is returned: it says whether a transaction is open."""
        with socket.socket(fileno=os.dup(server)) as duplicate:
            duplicate.setblocking(True)
            try:
                while True:
                    kind, message = _read_message(duplicate)
                    if kind == b"Z":
                        return message
                    client.sendall(message)
            finally:
                duplicate.setblocking(False)

    def _take(self) -> psycopg.Connection[object]:
        with self._free:
            self._free.wait_for(lambda: self._idle)
            return self._idle.pop()

    def _give_back(self, session: psycopg.Connection[object]) -> None:
        with self._free:
            self._idle.append(session)
            self._free.notify()


@contextmanager
def transaction_pooler(url: str, sessions: int) -> Iterator[TransactionPooler]:
    """Give a pooler before a server for the length of the block."""
    pooler = TransactionPooler(url, sessions)
    try:
        yield pooler
    finally:
        pooler.close()


def _exactly(source: socket.socket, count: int) -> bytes:
    found = b""
    while len(found) < count:
        part = source.recv(count - len(found))
        if not part:
            raise EOFError
        found += part
    return found


def _read_message(source: socket.socket) -> tuple[bytes, bytes]:
    head = _exactly(source, 5)
    (length,) = struct.unpack("!i", head[1:])
    return head[:1], head + _exactly(source, length - 4)


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body
