"""The pages: addresses, and what answers them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import TYPE_CHECKING, Any

import anyio
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.trustedhost import TrustedHostMiddleware
from starlette.requests import ClientDisconnect, Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from wscl_embed.errors import InputError
from wscl_embed.images import BadImageError
from wscl_embed.report.page import TEMPLATE as REPORT
from wscl_embed.searching.columns import cell_text
from wscl_embed.serving.asked import Asked
from wscl_embed.serving.filters import COMPARISONS, KINDS
from wscl_embed.serving.guard import HOSTS, Guard
from wscl_embed.serving.site import CARDS, Site

if TYPE_CHECKING:
    from starlette.types import ASGIApp

TEMPLATE = Path(__file__).parent / "template"
MAX_UPLOAD = 20 * 1024 * 1024
UPLOAD_SECONDS = 60
UPLOADS_AT_ONCE = 2
KEPT_AN_HOUR = {"Cache-Control": "private, max-age=3600, immutable"}
ASSETS = {
    "look.css": (REPORT / "look.css", "text/css"),
    "serve.css": (TEMPLATE / "serve.css", "text/css"),
    "serve.js": (TEMPLATE / "serve.js", "text/javascript"),
    "icon.svg": (TEMPLATE / "icon.svg", "image/svg+xml"),
}


def make_app(site: Site) -> ASGIApp:
    """The ASGI application that serves ``site``."""
    pages = Pages(site)
    routes = [
        Route("/", pages.start),
        Route("/clusters", pages.clusters),
        Route("/picture/{size}/{row}", pages.picture),
        Route("/upload/{key}", pages.uploaded),
        Route("/upload", pages.upload, methods=["POST"]),
        Route("/values", pages.values),
        Route("/asset/{name}", pages.asset),
    ]
    app = Starlette(
        routes=routes,
        middleware=[Middleware(TrustedHostMiddleware, allowed_hosts=HOSTS, www_redirect=False)],
        exception_handlers={HTTPException: pages.refusal, ClientDisconnect: lambda *_: Response(status_code=400)},
        max_body_size=MAX_UPLOAD,
    )
    app.router.redirect_slashes = False
    return Guard(app)


class Pages:
    """What answers each address. Those that are no coroutines run in threads."""

    def __init__(self, site: Site) -> None:
        self.site = site
        self._uploads = asyncio.Semaphore(UPLOADS_AT_ONCE)
        self._templates = Environment(loader=FileSystemLoader(TEMPLATE), autoescape=True, undefined=StrictUndefined)
        self._templates.trim_blocks = self._templates.lstrip_blocks = True
        self._templates.filters["cell"] = cell_text
        self._templates.globals.update(site=site, kinds=KINDS, comparisons=COMPARISONS, max_upload=MAX_UPLOAD)

    def start(self, request: Request) -> Response:
        """A search, or images to look through."""
        asked = Asked.from_query(request.query_params)
        shown: dict[str, Any] = {"asked": asked, "problem": "", "query": None, "results": None, "browsed": None}
        try:
            if asked.searches:
                shown |= {"query": self.site.query(asked), "results": self.site.search(asked)}
            else:
                shown["browsed"] = self.site.browse(asked)
        except InputError as error:
            shown["problem"] = str(error).removeprefix("--where ")
        return self._page("search.html", 400 if shown["problem"] else 200, **shown)

    def clusters(self, request: Request) -> Response:
        """Cards of clusters."""
        words = request.query_params.get("find", "")[:100]
        found = self.site.clusters.find(words) if self.site.clusters else []
        page = min(Asked.from_query(request.query_params).page, len(found) // CARDS + 1)
        numbers = found[CARDS * (page - 1) : CARDS * page]
        cards = [self.site.clusters.card(number) for number in numbers] if self.site.clusters else []
        more = len(found) > CARDS * page
        return self._page("clusters.html", cards=cards, found=len(found), words=words, page=page, more=more)

    def picture(self, request: Request) -> Response:
        """An image of the run, by its row."""
        row = request.path_params["row"]
        if not (row.isascii() and row.isdigit() and len(row) < 12):
            raise HTTPException(404)
        try:
            content = self.site.pictures.get(int(row), request.path_params["size"])
        except BadImageError as error:
            raise HTTPException(404, error.reason) from error
        return Response(content, media_type="image/webp", headers=KEPT_AN_HOUR)

    def uploaded(self, request: Request) -> Response:
        """An image somebody searched by."""
        try:
            upload = self.site.upload(request.path_params["key"])
        except InputError as error:
            raise HTTPException(404, str(error)) from error
        return Response(upload.picture, media_type="image/webp", headers=KEPT_AN_HOUR)

    async def upload(self, request: Request) -> Response:
        """Take an image to search by: the body is the file. Answers with its key."""
        async with self._uploads:
            content = None
            with anyio.move_on_after(UPLOAD_SECONDS):
                content = await request.body()
            if content is None:
                return JSONResponse({"problem": "The picture took too long to arrive."}, 408, {"Connection": "close"})
            try:
                return JSONResponse({"image": await run_in_threadpool(self.site.uploads.add, content)})
            except InputError as error:
                return JSONResponse({"problem": str(error)}, 422)

    def values(self, request: Request) -> Response:
        """The commonest values of a column."""
        column = request.query_params.get("column", "")
        if column not in self.site.kinds:
            raise HTTPException(404)
        return JSONResponse(self.site.values(column))

    def asset(self, request: Request) -> Response:
        """Style and script: these files and no others."""
        if request.path_params["name"] not in ASSETS:
            raise HTTPException(404)
        path, kind = ASSETS[request.path_params["name"]]
        return Response(path.read_bytes(), media_type=kind, headers=KEPT_AN_HOUR)

    def refusal(self, request: Request, error: Exception) -> Response:
        """Say in plain words what cannot be had."""
        assert isinstance(error, HTTPException)
        words = {404: "There is no such page.", 413: f"Pictures may have up to {MAX_UPLOAD >> 20} MiB."}
        return PlainTextResponse(words.get(error.status_code, error.detail), error.status_code, error.headers)

    def _page(self, template: str, status: int = 200, **shown: Any) -> Response:
        return HTMLResponse(self._templates.get_template(template).render(**shown), status)
