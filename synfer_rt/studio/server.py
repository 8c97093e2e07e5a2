"""The web server of the studio: its page, and what the page asks for.

Starlette routes the requests and uvicorn serves them. The engines run on one thread of their own,
which lives as long as the server: they answer one request after another.
"""

from __future__ import annotations

import asyncio
import json
import signal
import socket
import threading
from collections.abc import Callable, Generator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from importlib.resources import files
from types import FrameType
from typing import Any, TypeVar, cast
from urllib.parse import unquote

import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import ASGIApp, Receive, Scope, Send

from synfer_rt import ranges
from synfer_rt.backends import thread_count
from synfer_rt.backends.loaded_engines import LoadedEngines
from synfer_rt.bundle import open_bundle
from synfer_rt.errors import UserError
from synfer_rt.paths import Location
from synfer_rt.studio import origins
from synfer_rt.studio.answers import image_answer, photo_answer
from synfer_rt.studio.controls import controls
from synfer_rt.studio.copying import copies
from synfer_rt.studio.making import Maker, OutOfDate
from synfer_rt.studio.photos import MOST_BYTES, Photos, too_large
from synfer_rt.studio.state import settings_of

PORT = 7860
"""The port by default, which users of Gradio know."""
_PAGE = {
    "index.html": "text/html",
    "studio.css": "text/css",
    "line.js": "text/javascript",
    "units.js": "text/javascript",
    "answers.js": "text/javascript",
    "studio.js": "text/javascript",
}
"""The files of the page, and their types."""
_BASE = "base.css"
"""The style that the report has too, from where it lies."""
_HEADERS = {
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self'; img-src data:; "
        "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    ),
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cache-control": "no-store",
}
"""Of each answer: the page may ask this server alone, and no other page may show it."""
_MOST_STATE = 100_000
"""Bytes of a state."""
_SIGNALS = [getattr(signal, n) for n in ("SIGINT", "SIGTERM", "SIGHUP") if hasattr(signal, n)]
_GONE = 0.05
"""Seconds between two looks at whether somebody still waits for an image."""

Result = TypeVar("Result")


class Studio:
    """A server for the engines of a bundle, bound to `host` and `port` when it is made.

    `port` 0 is any that is free; `address` says where the page is. `run` serves until `stop` is
    called or a signal comes. `names` are further names under which the machine is reached. Raises
    UserError for a host or port that cannot be bound. A context manager, at whose end the port is
    free and the uploads are removed.
    """

    def __init__(
        self,
        engines: LoadedEngines,
        host: str = "127.0.0.1",
        port: int = PORT,
        names: tuple[str, ...] = (),
    ) -> None:
        self._socket = _bound(host, port)
        self._photos = Photos(engines.bundle)
        self._maker = Maker(engines)
        self._thread = ThreadPoolExecutor(1, "engines")
        shown = f"[{host}]" if ":" in host else host
        self.address = f"http://{shown}:{self._socket.getsockname()[1]}/"
        app = _Guarded(self._app(), (*names, host))
        config = uvicorn.Config(
            app, log_level="warning", access_log=False, server_header=False, lifespan="off",
            ws="none", http="h11", loop="asyncio", proxy_headers=False, limit_concurrency=100,
            timeout_graceful_shutdown=1,
        )  # fmt: skip
        self._server = _Server(config)

    def __enter__(self) -> Studio:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(cancel_futures=True)
        self._socket.close()
        self._photos.__exit__()

    def warm(self) -> None:
        """Make an image, so that the engines are loaded and compiled for the first that is asked.

        Raises UserError for engines that do not load.
        """
        label = self._maker.bundle.classes[0]
        self._thread.submit(self._maker.make, {"labels": [label]}).result()

    def run(self) -> None:
        """Serve until `stop` or a signal."""
        self._server.run(sockets=[self._socket])

    def stop(self) -> None:
        """Let `run`, on another thread, return."""
        self._server.should_exit = True

    def _app(self) -> Starlette:
        routes = [
            Route("/", partial(_file, "index.html")),
            *(Route(f"/{name}", partial(_file, name)) for name in (*_PAGE, _BASE)),
            Route("/controls", self._controls),
            Route("/image", self._image, methods=["POST"]),
            Route("/copies", self._copies, methods=["POST"]),
            Route("/photo", self._photo, methods=["POST"]),
        ]
        return Starlette(routes=routes, exception_handlers={UserError: _refused})

    async def _controls(self, request: Request) -> Response:
        return JSONResponse(controls(self._maker.bundle, self._maker.engines.backend))

    async def _image(self, request: Request) -> Response:
        """The image of a state."""
        settings = settings_of(await _state(request), self._photos)
        gone = threading.Event()
        watching = asyncio.create_task(_watch(request, gone))
        try:
            made = await self._on_engines(
                lambda: self._maker.make(
                    settings, lambda: gone.is_set() or self._server.should_exit
                )
            )
        except OutOfDate:
            return Response(status_code=204)
        finally:
            watching.cancel()
            gone.set()  # also where the request is cancelled
        return JSONResponse(image_answer(made))

    async def _copies(self, request: Request) -> Response:
        """A state as command, Python and plan."""
        state = await _state(request)
        settings = settings_of(state, self._photos)
        photo = self._photos(state["photo"]) if state.get("photo") is not None else None
        run = self._maker.run_of(settings)
        return JSONResponse(copies(settings, run, self._maker.engines.backend, photo))

    async def _photo(self, request: Request) -> Response:
        """An upload, whose body is the file."""
        content = await _body(request, MOST_BYTES, too_large)
        name = unquote(request.headers.get("x-file-name", "photo"))
        align = request.query_params.get("align") == "true"
        loop = asyncio.get_running_loop()
        photo = await loop.run_in_executor(None, self._photos.add, content, name, align)
        read = await self._on_engines(lambda: self._maker.read(photo.pixels))
        decibels = await self._on_engines(lambda: self._maker.comes_back(photo.pixels))
        return JSONResponse(photo_answer(photo, read, decibels, self._maker.bundle))

    async def _on_engines(self, work: Callable[[], Result]) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def open_studio(
    bundle: Location | None = None,
    backend: str = "auto",
    threads: int | None = None,
    host: str = "127.0.0.1",
    port: int = PORT,
    names: tuple[str, ...] = (),
) -> Studio:
    """The studio of the bundle in a directory, by default the one that ships with synfer-rt.

    `backend` and `threads` are those of `synfer_rt.load`, the other arguments those of Studio.
    Raises UserError for any of them that does not fit.
    """
    opened = open_bundle(bundle)
    port = ranges.whole("port", port, 0, 65535)
    thread_count(threads)
    return Studio(LoadedEngines(opened, backend, threads), host, port, names)


class _Server(uvicorn.Server):
    """Ends at a signal, and then leaves it to the handler that who calls `run` has set.

    That handler may raise an exception, which would be lost in the answer to a request.
    """

    @contextmanager
    def capture_signals(self) -> Generator[None]:
        """Within the block a signal that has a handler ends the server; it is raised after it."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        came: list[int] = []

        def end(number: int, frame: FrameType | None) -> None:
            came.append(number)
            self.should_exit = True

        before = {number: signal.getsignal(number) for number in _SIGNALS}
        handled = {number: handler for number, handler in before.items() if callable(handler)}
        for number in handled:
            signal.signal(number, end)
        try:
            yield
        finally:
            for number, handler in handled.items():
                signal.signal(number, handler)
        if came:
            signal.raise_signal(came[0])


class _Guarded:
    """Answers only requests for an own address that no other site sends; adds _HEADERS."""

    def __init__(self, app: ASGIApp, names: tuple[str, ...]) -> None:
        self._app, self._names = app, names
        self._headers = [(name.encode(), value.encode()) for name, value in _HEADERS.items()]

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in
                   scope.get("headers", ())}  # fmt: skip

        async def with_headers(message: Any) -> None:
            if message["type"] == "http.response.start":
                message["headers"] = [*message.get("headers", ()), *self._headers]
            await send(message)

        app = self._app
        if not origins.is_own(headers.get("host"), self._names):
            app = _error("The studio is not known under this name; open it by its address.", 421)
        elif origins.is_foreign(headers) and scope.get("path") != "/":
            app = _error("The studio answers its own page only; open it by its address.", 403)
        try:
            await app(scope, receive, with_headers)
        except asyncio.CancelledError:  # the studio ends before a long stage does
            await _error("The studio has ended.", 503)(scope, receive, with_headers)


async def _file(name: str, request: Request) -> Response:
    room, media = ("report", "text/css") if name == _BASE else ("studio", _PAGE[name])
    content = files(f"synfer_rt.{room}").joinpath("page", name).read_bytes()
    return Response(content, media_type=media)


async def _state(request: Request) -> Mapping[str, Any]:
    """The JSON object of a request. Raises UserError for anything else."""
    body = await _body(request, _MOST_STATE, lambda size: "The state is too large; shorten it.")
    try:
        state = json.loads(body)
    except (ValueError, RecursionError):
        raise UserError("A state must be JSON; reload the page.") from None
    if not isinstance(state, dict):
        raise UserError("A state must be a JSON object; reload the page.")
    return cast("dict[str, Any]", state)


async def _body(request: Request, most: int, refusal: Callable[[int], str]) -> bytes:
    """The body of a request, of which no more than `most` bytes are read."""
    said, body = int(request.headers.get("content-length", 0)), bytearray()
    async for part in request.stream():
        body += part
        if (size := max(said, len(body))) > most:
            raise UserError(refusal(size))
    return bytes(body)


async def _watch(request: Request, gone: threading.Event) -> None:
    """Set `gone` when nobody waits for the answer any more."""
    while not await request.is_disconnected():
        await asyncio.sleep(_GONE)
    gone.set()


async def _refused(request: Request, error: Exception) -> Response:
    return _error(str(error), 400)


def _error(sentence: str, status: int) -> Response:
    return JSONResponse({"error": sentence}, status)


def _bound(host: str, port: int) -> socket.socket:
    """A socket that listens on `host` and `port`."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        return socket.create_server((host, port), family=family)
    except (OSError, OverflowError, UnicodeError) as error:
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(
            f"The studio cannot listen on `host` {host}, `port` {port} ({reason}); choose another "
            "`port`, or 0 for any that is free."
        ) from None
