"""The server of the page: on this machine's own address alone, for who has the token."""

import asyncio
import json
import secrets
import socket
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import asdict, dataclass
from importlib.resources import files
from types import FrameType

import uvicorn
from matplotlib import colormaps
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Route
from starlette.types import ASGIApp

from underfire.errors import InputError
from underfire.present.pictures import COLORMAP
from underfire.studio.guard import Guard
from underfire.studio.session import BusyError, StudioSession
from underfire.studio.wish import DRAWN, GOALS, MOST_PASSES, perturbation_choices, wish_of

HOST = "127.0.0.1"
"""The only address that is listened on."""

MOST_UPLOAD = 32 * 2**20
"""Bytes of a photo."""

_MOST_JSON = 2**16
_MOST_REQUESTS = 32  # at once
_BEAT = 0.1  # seconds between looks for news
_SILENCE = 150  # beats after which a stream says that it is still there
_KINDS = {"html": "text/html; charset=utf-8", "js": "text/javascript; charset=utf-8", "css": "text/css; charset=utf-8"}

Answer = Callable[[Request], Awaitable[Response]]


class _TooLargeError(InputError):
    """A body of too many bytes."""


def new_token() -> str:
    """A secret for one server: 32 random bytes, as they may stand in an address."""
    return secrets.token_urlsafe(32)


def studio_app(session: StudioSession, *, token: str, port: int) -> ASGIApp:
    """The page of ``session`` for a server on ``port``; every address of it begins with the ``token``."""
    pages = _Pages(session)
    routes = [
        *(Route(f"/{name}", _static(room, file), methods=["GET"]) for name, (room, file) in _STATIC.items()),
        Route("/options/{model:int}", _answered(pages.options), methods=["GET"]),
        Route("/photos/{photo:int}", _answered(pages.thumbnail), methods=["GET"]),
        Route("/photo", _answered(pages.drop), methods=["POST"]),
        Route("/look", _answered(pages.look), methods=["POST"]),
        Route("/attack", _answered(pages.attack), methods=["POST"]),
        Route("/stop", _answered(pages.stop), methods=["POST"]),
        Route("/news", pages.news, methods=["GET"]),
        Route("/evidence.zip", _answered(pages.evidence), methods=["GET"]),
    ]
    app = Starlette(routes=routes)
    app.router.redirect_slashes = False
    return Guard(app, token=token, hosts=frozenset({f"{HOST}:{port}", f"localhost:{port}"}))


_STATIC = {
    "": ("studio", "page/studio.html"),
    "studio.js": ("studio", "page/studio.js"),
    "studio.css": ("studio", "page/studio.css"),
    "style.css": ("present", "templates/style.css"),
}
"""By address: the room and the file in it."""


def _static(room: str, file: str) -> Answer:
    content, kind = (files(f"underfire.{room}") / file).read_bytes(), _KINDS[file.rpartition(".")[2]]

    async def answer(_: Request) -> Response:
        return Response(content, media_type=kind)

    return answer


def _answered(answer: Answer) -> Answer:
    """``answer``, whose errors are a sentence for the page."""

    async def call(request: Request) -> Response:
        try:
            return await answer(request)
        except BusyError as error:
            return _refused(error, 409)
        except _TooLargeError as error:
            return _refused(error, 413)
        except InputError as error:
            return _refused(error, 422)
        except ClientDisconnect:
            return Response(status_code=400)
        except Exception as error:  # noqa: BLE001 - one sentence, whatever it was
            traceback.print_exc(file=sys.stderr)
            told = f"That ended with a mistake of ours ({type(error).__name__}); the terminal has the details."
            return JSONResponse({"error": told}, 500)

    return call


def _refused(error: InputError, status: int) -> Response:
    text = str(error)
    return JSONResponse({"error": text[:1].upper() + text[1:]}, status)


class _Pages:
    """The answers that need the session."""

    def __init__(self, session: StudioSession) -> None:
        self._session = session

    async def options(self, request: Request) -> Response:
        place = request.path_params["model"]
        found = await run_in_threadpool(self._session.options, place)
        colours = (colormaps[COLORMAP].resampled(256).colors * 255).round().astype(int)  # type: ignore[attr-defined]
        found |= {
            "models": [model.name for model in self._session.models],
            "goals": list(GOALS),
            "perturbations": [asdict(choice) for choice in perturbation_choices()],
            "drawn": DRAWN,
            "most_passes": MOST_PASSES,
            "most_upload": MOST_UPLOAD,
            "colours": colours[:, :3].tolist(),
        }
        return JSONResponse(found)

    async def thumbnail(self, request: Request) -> Response:
        return Response(self._session.thumbnail(request.path_params["photo"]), media_type="image/jpeg")

    async def drop(self, request: Request) -> Response:
        data = await _body(request, MOST_UPLOAD, "the photo")
        dropped = await run_in_threadpool(self._session.drop, data)
        return JSONResponse({"preview": dropped.preview, "size": list(dropped.size)})

    async def look(self, request: Request) -> Response:
        wish = wish_of(await _body(request, _MOST_JSON, "the request"))
        return JSONResponse(await run_in_threadpool(self._session.look, wish.model, wish.photo, wish.interpreters))

    async def attack(self, request: Request) -> Response:
        wish = wish_of(await _body(request, _MOST_JSON, "the request"))
        return JSONResponse({"number": await run_in_threadpool(self._session.begin, wish)}, 202)

    async def stop(self, _: Request) -> Response:
        self._session.stop()
        return JSONResponse({})

    async def evidence(self, _: Request) -> Response:
        headers = {"content-disposition": 'attachment; filename="underfire-evidence.zip"'}
        return Response(self._session.evidence(), media_type="application/zip", headers=headers)

    async def news(self, _: Request) -> Response:
        return StreamingResponse(self._stream(), media_type="text/event-stream")

    async def _stream(self) -> AsyncIterator[str]:
        known, silent = (0, 0, -1), 0
        while not self._session.closed.is_set():
            found = self._session.news(*known)
            silent = 0 if found else silent + 1
            if found is not None:
                told, *rest = found
                known = (rest[0], rest[1], rest[2])
                yield f"data: {json.dumps(told)}\n\n"
            elif silent % _SILENCE == 0:
                yield ": here\n\n"
            await asyncio.sleep(_BEAT)


async def _body(request: Request, most: int, what: str) -> bytes:
    """The body of a request, read no further than ``most`` bytes."""
    refusal = _TooLargeError(f"{what} is larger than {most / 2**20:g} MiB; give a smaller one.")
    if int(request.headers.get("content-length", "0")) > most:
        raise refusal
    parts, size = [], 0
    async for part in request.stream():
        size += len(part)
        if size > most:
            raise refusal
        parts.append(part)
    return b"".join(parts)


def listening(port: int) -> socket.socket:
    """A socket that listens on ``port`` of this machine's own address, 0 for any that is free.

    Raises:
        InputError: the port is in use, or not for this user.
    """
    found = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        found.bind((HOST, port))
    except OSError as error:
        found.close()
        raise InputError(
            f"port {port} cannot be used here ({error.strerror}); give another --port, or --port 0 for any that is free"
        ) from error
    return found


@dataclass(frozen=True)
class Studio:
    """A server that is about to serve."""

    session: StudioSession
    listener: socket.socket
    token: str

    @property
    def address(self) -> str:
        """Where the page is."""
        return f"http://{HOST}:{self.listener.getsockname()[1]}/{self.token}/"

    def serve(self, ready: Callable[[], None] = lambda: None) -> None:
        """Serves until the process is interrupted; raises KeyboardInterrupt then. ``ready`` is called once it does."""
        app = studio_app(self.session, token=self.token, port=self.listener.getsockname()[1])
        config = uvicorn.Config(
            app, http="h11", ws="none", loop="asyncio", lifespan="off", log_level="critical", access_log=False,
            proxy_headers=False, server_header=False, limit_concurrency=_MOST_REQUESTS, timeout_graceful_shutdown=5,
        )  # fmt: skip
        try:
            _Server(config, self.session, ready).run([self.listener])
        finally:
            self.session.close()
            self.listener.close()


class _Server(uvicorn.Server):
    """One whose streams end when it is to end."""

    def __init__(self, config: uvicorn.Config, session: StudioSession, ready: Callable[[], None]) -> None:
        super().__init__(config)
        self._session, self._ready = session, ready

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self._ready()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._session.closed.set()
        super().handle_exit(sig, frame)
