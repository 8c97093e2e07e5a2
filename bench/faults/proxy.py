"""A TCP proxy before a server on loopback, which cuts connections, answers late and goes away."""

from __future__ import annotations

import socket
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass

UNAVAILABLE = (
    b"HTTP/1.1 503 Slow Down\r\nContent-Type: application/xml\r\nContent-Length: 91\r\n"
    b"Connection: close\r\n\r\n"
    b"<?xml version='1.0'?><Error><Code>SlowDown</Code><Message>Slow down</Message></Error>      "
)


@dataclass(frozen=True)
class Fault:
    """What befalls one connection: cut after so many bytes up or down, late, or refused by 503."""

    up: int | None = None
    down: int | None = None
    late: float = 0.0
    unavailable: bool = False


class Proxy:
    """Forwards to `port`; each new connection takes the next of `faults`, or none.

    `connections` have been made, of which `cuts` were cut short.
    """

    def __init__(self, port: int) -> None:
        self._to, self.port = port, 0
        self.faults: deque[Fault] = deque()
        self.connections = self.cuts = 0
        self._open: set[socket.socket] = set()
        self.come()

    @property
    def url(self) -> str:
        """Where clients find it."""
        return f"http://127.0.0.1:{self.port}"

    def come(self) -> None:
        """Listen, at the same port as before."""
        self._listener = socket.create_server(("127.0.0.1", self.port))
        self.port = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def go(self) -> None:
        """Cut all connections, and refuse new ones until `come`."""
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()

    def cut(self) -> None:
        """Cut all connections."""
        ends = list(self._open)
        self.cuts += len(ends) // 2
        for end in ends:
            _close(end)

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            self.connections += 1
            fault = self.faults.popleft() if self.faults else Fault()
            threading.Thread(target=self._serve, args=(client, fault), daemon=True).start()

    def _serve(self, client: socket.socket, fault: Fault) -> None:
        if fault.unavailable:
            with suppress(OSError):
                client.recv(1 << 20)
                client.sendall(UNAVAILABLE)
            _close(client)
            return
        server = socket.create_connection(("127.0.0.1", self._to))
        self._open |= {client, server}
        upwards = (client, server, fault.up, 0.0)
        up = threading.Thread(target=self._forward, args=upwards, daemon=True)
        up.start()
        self._forward(server, client, fault.down, fault.late)
        up.join()
        self._open -= {client, server}

    def _forward(
        self, source: socket.socket, target: socket.socket, most: int | None, late: float
    ) -> None:
        """Forward until an end closes or `most` bytes are through; the first ones come `late`."""
        left = most
        with suppress(OSError):
            while data := source.recv(1 << 16):
                if late:
                    time.sleep(late)
                    late = 0.0
                if left is not None and len(data) >= left:
                    self.cuts += 1
                    target.sendall(data[:left])
                    break
                target.sendall(data)
                left = None if left is None else left - len(data)
        _close(source)
        _close(target)


def _close(end: socket.socket) -> None:
    with suppress(OSError):
        end.shutdown(socket.SHUT_RDWR)
    end.close()
