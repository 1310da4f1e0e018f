"""`Guard`: what holds for every answer, and who may ask."""

from __future__ import annotations

from typing import TYPE_CHECKING

from starlette.datastructures import Headers, MutableHeaders
from starlette.responses import PlainTextResponse

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

HOSTS = ["127.0.0.1", "localhost"]
HEADERS = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; script-src 'self'; "
    "connect-src 'self'; form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Referrer-Policy": "same-origin",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
}


class Guard:
    """Puts the security headers on every answer, and refuses what another site's page sends.

    A page of another site can make a browser send requests here, though not read the answers. Browsers say where such
    a request comes from: in ``Origin`` and in ``Sec-Fetch-Site``. Both must be this site for all but reading; and what
    is read from within another site's page (its pictures, its frames) is refused as well. Following a link is allowed.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers.update(HEADERS)
                headers.setdefault("Cache-Control", "no-cache")
            await send(message)

        if scope["type"] == "http" and is_foreign(scope["method"], Headers(scope=scope)):
            await PlainTextResponse("Refused: another site asks.", 403)(scope, receive, send_with_headers)
        else:
            await self._app(scope, receive, send_with_headers)


def is_foreign(method: str, headers: Headers) -> bool:
    """Whether a browser says that another site is behind a request.

    >>> is_foreign("POST", Headers({"host": "127.0.0.1:80", "origin": "http://127.0.0.1:80"}))
    False
    >>> is_foreign("POST", Headers({"host": "127.0.0.1:80", "origin": "https://elsewhere.example"}))
    True
    """
    site = headers.get("sec-fetch-site", "none")
    followed_link = method == "GET" and headers.get("sec-fetch-mode") == "navigate"
    if site not in ("none", "same-origin") and not (followed_link and headers.get("sec-fetch-dest") == "document"):
        return True
    origin = headers.get("origin")
    return method not in ("GET", "HEAD") and origin is not None and origin != f"http://{headers.get('host', '')}"
