"""The server: a socket on this machine, and uvicorn on it until somebody ends it."""

from __future__ import annotations

import asyncio
import errno
import socket
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

import uvicorn

from wscl_embed.errors import InputError

if TYPE_CHECKING:
    from starlette.types import ASGIApp

HOST = "127.0.0.1"
PORT = 8765
TRIED = 20  # ports, where none was asked for
AT_ONCE = 100  # connections


def open_socket(port: int | None) -> socket.socket:
    """A socket bound to a port of 127.0.0.1; to the first free one from 8765 on for None, to any for 0.

    Raises:
        InputError: the port is taken, or may not be used.
    """
    ports = range(PORT, PORT + TRIED) if port is None else [port]
    for one in ports:
        found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            found.bind((HOST, one))
            return found
        except OSError as error:
            found.close()
            if error.errno != errno.EADDRINUSE:
                raise InputError(f"--port {one} cannot be used: {error.strerror}.") from error
    tried = f"--port {port} is" if port is not None else f"the ports {PORT} to {PORT + TRIED - 1} are"
    raise InputError(f"{tried} taken; --port 0 takes any that is free.")


class Server(uvicorn.Server):
    """uvicorn on a socket of ours, which says when it answers.

    Args:
        app: what it serves.
        listening: from `open_socket`.
        ready: called with the address as soon as it answers.
    """

    def __init__(self, app: ASGIApp, listening: socket.socket, ready: Callable[[str], None]) -> None:
        config = uvicorn.Config(
            app,
            http="h11",
            ws="none",
            lifespan="off",
            proxy_headers=False,
            server_header=False,
            access_log=False,
            log_level="warning",
            limit_concurrency=AT_ONCE,
            timeout_graceful_shutdown=2,
        )
        super().__init__(config)
        self._listening, self._ready = listening, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        if self.started:
            self._ready(f"http://{HOST}:{self._listening.getsockname()[1]}/")

    def serve_until_stopped(self) -> None:
        """Serve until the process is interrupted; Ctrl-C is how this ends, and no error."""
        with suppress(KeyboardInterrupt):
            if _in_a_loop():
                self._run_in_a_thread()
            else:
                self.run(sockets=[self._listening])

    def _run_in_a_thread(self) -> None:
        """With a loop of its own, where this thread has one that runs: in a notebook."""
        thread = threading.Thread(target=self.run, kwargs={"sockets": [self._listening]}, daemon=True)
        thread.start()
        try:
            thread.join()
        finally:
            self.should_exit = True
            thread.join()


def _in_a_loop() -> bool:
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return False
    return True
