"""`/docs` and `/redoc`, from files that lie on this machine: they work without internet."""

import importlib.util
from pathlib import Path

from fastapi import APIRouter, FastAPI
from fastapi.openapi.docs import get_redoc_html, get_swagger_ui_html
from fastapi.responses import HTMLResponse, RedirectResponse
from fastapi.staticfiles import StaticFiles

router = APIRouter(include_in_schema=False)
STATIC = "/static/docs"
# Nobody frames these pages, guesses their type, or hears where their readers go next.
SAFE = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
}


@router.get("/")
async def index() -> RedirectResponse:
    """Lead a browser to the documents."""
    return RedirectResponse("docs")


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
    page.headers.update(SAFE)
    return page


def mount_static(app: FastAPI) -> None:
    """Serve the scripts that fastapi-offline ships; only its files are used, not its code."""
    spec = importlib.util.find_spec("fastapi_offline")
    assert spec is not None  # noqa: S101  # a dependency of ours
    assert spec.origin is not None  # noqa: S101
    app.mount(STATIC, StaticFiles(directory=Path(spec.origin).parent / "static"), name="docs")
