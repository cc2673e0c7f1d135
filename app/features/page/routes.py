"""The page at `/`, from files on this machine: it works without internet."""

from pathlib import Path
from typing import Any

from fastapi import APIRouter, FastAPI, Request, Response
from fastapi.responses import RedirectResponse
from fastapi.staticfiles import StaticFiles

from app.http.docs import SAFE
from app.http.prefix import public_prefix

router = APIRouter(include_in_schema=False)
PAGE_STATIC = "/static/page"
WEB = Path(__file__).parent / "web"
# The page shows texts of users and models, so it runs only its own scripts, loads nothing from
# other hosts, and never parses text as HTML (trusted types: scripts can't set innerHTML at all).
PAGE_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; "
    "img-src 'self' data:; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
)
# Browsers cache the files, but check them by ETag each time: after an upgrade old scripts would not
# fit the new page.
PAGE_HEADERS = SAFE | {"Cache-Control": "no-cache", "Content-Security-Policy": PAGE_POLICY}


class PageFiles(StaticFiles):
    """The files of the page; answers 304 to a browser that has them cached."""

    def file_response(self, *args: Any, **kwargs: Any) -> Response:  # noqa: ANN401  # as inherited
        """Answer with a file, or with 304 if it hasn't changed."""
        response = super().file_response(*args, **kwargs)
        response.headers.update(PAGE_HEADERS)
        return response


page_files = PageFiles(directory=WEB)


@router.api_route("/", methods=["GET", "HEAD"])
async def page(request: Request) -> Response:
    """Show the page on which everything can be tried."""
    if not request.scope.get("raw_path", b"/").endswith(b"/"):
        # At the prefix itself, where the page's relative links would lead out of it.
        query = f"?{request.url.query}" if request.url.query else ""
        return RedirectResponse(f"{await public_prefix(request)}/{query}")
    return await page_files.get_response("index.html", request.scope)


def mount_static(app: FastAPI) -> None:
    """Serve the page's files."""
    app.mount(PAGE_STATIC, page_files, name="page")
