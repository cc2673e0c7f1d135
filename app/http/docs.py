"""`/docs` and `/redoc`, from files on this machine, so that they work without internet."""

import importlib.util
import re
from base64 import b64encode
from hashlib import sha256
from pathlib import Path

from fastapi import APIRouter, FastAPI, Request
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse
from fastapi.staticfiles import StaticFiles

from app.http.api_document import ApiDocument
from app.http.large_answers import LargeAnswer
from app.http.prefix import public_prefix

router = APIRouter(include_in_schema=False)
STATIC = "/static/docs"
# No other site may embed these pages or learn of them as a referrer.
SAFE = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}
# Swagger UI and ReDoc create styles and images at run time, and ReDoc a worker for its search.
# ReDoc's logo isn't allowed: it would come from another server.
DOCS_POLICY = (
    "default-src 'none'; script-src 'self' {hashes}; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data:; connect-src 'self'; worker-src blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)
INLINE_SCRIPT = re.compile(rb"<script>(.*?)</script>", re.DOTALL)


@router.get("/openapi.json")
async def openapi(request: Request) -> LargeAnswer:
    """Answer the OpenAPI document, with the address that the caller has used."""
    document: ApiDocument = request.app.state.api_document
    return LargeAnswer(await document.encoded(await public_prefix(request) or "/"))


@router.get("/docs")
async def swagger() -> HTMLResponse:
    """Show Swagger UI."""
    return _safe(
        get_swagger_ui_html(
            openapi_url="openapi.json",
            title="ml-api",
            swagger_js_url=f".{STATIC}/swagger-ui-bundle.js",
            swagger_css_url=f".{STATIC}/swagger-ui.css",
            swagger_favicon_url=f".{STATIC}/favicon.png",
        )
    )


@router.get("/redoc")
async def redoc() -> HTMLResponse:
    """Show ReDoc."""
    return _safe(
        get_redoc_html(
            openapi_url="openapi.json",
            title="ml-api",
            redoc_js_url=f".{STATIC}/redoc.standalone.js",
            redoc_favicon_url=f".{STATIC}/favicon.png",
            with_google_fonts=False,
        )
    )


def _safe(page: HTMLResponse) -> HTMLResponse:
    """Allow the page its own inline scripts, by their hashes, and no others."""
    scripts = INLINE_SCRIPT.findall(page.body)
    hashes = " ".join(f"'sha256-{b64encode(sha256(s).digest()).decode()}'" for s in scripts)
    policy = DOCS_POLICY.format(hashes=hashes)
    page.headers.update(SAFE | {"Content-Security-Policy": policy})
    return page


def mount_static(app: FastAPI) -> None:
    """Serve the files that fastapi-offline ships: not its code."""
    spec = importlib.util.find_spec("fastapi_offline")
    assert spec is not None  # noqa: S101  # a dependency of ours
    assert spec.origin is not None  # noqa: S101
    app.mount(STATIC, StaticFiles(directory=Path(spec.origin).parent / "static"), name="docs")
