"""Write the tables of docs/ and .env.example from the code, or check that they are true."""

import argparse
import ast
import sys
import tomllib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prometheus_client.metrics import MetricWrapperBase
from pydantic import BaseModel

from app.errors import SchemaTooNewError, ServiceError, StartupError, all_service_errors
from app.http.openai_fields import Refused, WithoutEffect, done, marked
from app.main import installed, settings_type
from app.runtime.plugins import Feature
from app.tasks.chat.completion_schemas import CompletionRequest
from app.tasks.chat.openai_messages import ChatCompletionMessage, ContentPart
from app.tasks.chat.openai_schemas import ChatCompletionRequest, StreamOptions
from scripts.kubernetes_rules import MANIFEST, rules_manifest

ROOT = Path(__file__).parent.parent
BEGIN = "<!-- made by `make docs` from the code; edit the code instead -->"
END = "<!-- end -->"
ENV_HEAD = """\
# Copy to .env and change what you need; docs/settings.md has the same as a table.

# Secrets that docker-compose.yml wants, beside ADMIN_KEY below; docs/image.md has a line that makes
# them. They have no defaults, and are no settings of the service.
#POSTGRES_PASSWORD=
#REDIS_PASSWORD=
# Only with its profile `monitoring`.
#GRAFANA_PASSWORD="""


def table(head: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> str:
    """Return a Markdown table."""
    lines = [head, tuple("---" for _ in head), *rows]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in lines)


def default(name: str, value: Any) -> str:  # noqa: ANN401  # a setting's default can be anything
    """Return a default as a person writes it."""
    if name == "models_file":
        return ""
    if value is None:
        return ""
    return str(value).lower() if isinstance(value, bool) else str(value)


def settings_table() -> str:
    """Return every setting with default and meaning."""
    rows: list[tuple[str, ...]] = []
    for name, field in settings_type().model_fields.items():
        shown = default(name, field.default)
        rows.append((f"`{name.upper()}`", f"`{shown}`" if shown else "", field.description or ""))
    return table(("setting", "default", "meaning"), rows)


def env_example() -> str:
    """Return .env.example: what compose wants, and every setting, commented out, at its default."""
    lines = [ENV_HEAD]
    for name, field in settings_type().model_fields.items():
        lines += ["", f"# {field.description}", f"#{name.upper()}={default(name, field.default)}"]
    return "\n".join(lines) + "\n"


def errors_table() -> str:
    """Return every code that a client can meet."""
    rows = [
        (str(error.status), f"`{error.code}`", (error.__doc__ or "").strip())
        for error in sorted(all_service_errors(), key=lambda e: (e.status, e.code))
        if error is not ServiceError
    ]
    return table(("status", "code", "detail"), rows)


def reasons_table() -> str:
    """Return every reason for which a model can fail to load."""
    every: list[type[StartupError]] = [*StartupError.__subclasses__(), SchemaTooNewError]
    rows = [(f"`{error.reason}`", (error.__doc__ or "").strip()) for error in every]
    return table(("reason", "meaning"), rows)


def fields_tables() -> tuple[str, ...]:
    """Return fields of chat completions: done, without effect, refused; of completions: done."""
    parts: dict[str, type[BaseModel]] = {
        "": ChatCompletionRequest,
        "stream_options.": StreamOptions,
        "messages[].": ChatCompletionMessage,
        "messages[].content[].": ContentPart,
    }
    known = code([start + name for start, schema in parts.items() for name in done(schema)])
    marks = (
        [
            (f"`{start}{name}`", reason)
            for start, schema in parts.items()
            for name, reason in sorted(marked(schema, kind).items())
        ]
        for kind in (WithoutEffect, Refused)
    )
    bare = code(done(CompletionRequest))
    return known, *(table(("field", "reason"), rows) for rows in marks), bare


def metrics_table() -> str:
    """Return every metric that metrics.py declares."""
    rows: list[tuple[str, ...]] = []
    for metric in (m for group in installed().metrics() for m in vars(group).values()):
        if isinstance(metric, MetricWrapperBase):
            told = next(iter(metric.describe()))
            name = f"{told.name}{'_total' if told.type == 'counter' else ''}"
            rows.append((f"`{name}`", told.type, labels(metric), told.documentation))
    return table(("metric", "type", "labels", "meaning"), rows)


def folders_table() -> str:
    """Return every folder of app/ with what is decided there, and the files beside them."""
    app = ROOT / "app"
    folders = sorted(file.parent for file in app.rglob("__init__.py"))
    rows = [
        (f"`{folder.relative_to(ROOT)}/`", first_sentence(folder / "__init__.py"))
        for folder in folders[1:]
    ]
    files = [file for file in sorted(app.glob("*.py")) if not file.name.startswith("__")]
    rows += [(f"`{file.relative_to(ROOT)}`", first_sentence(file)) for file in files]
    return table(("where", "what is decided there"), rows)


def first_sentence(file: Path) -> str:
    """Return the first line of a module's docstring.

    Raises:
        SystemExit: it has none.

    """
    docstring = ast.get_docstring(ast.parse(file.read_text(encoding="utf-8")))
    if not docstring:
        sys.exit(f"{file} doesn't say what is decided there")
    return docstring.splitlines()[0]


def layers_table() -> str:
    """Return the layers that import-linter holds, the highest first."""
    pyproject = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    contracts = pyproject["tool"]["importlinter"]["contracts"]
    layers = next(contract["layers"] for contract in contracts if contract["type"] == "layers")
    return table(
        ("", "may import what is below"), [layer_row(*row) for row in enumerate(layers, 1)]
    )


def layer_row(number: int, layer: str) -> tuple[str, str]:
    """Return a layer's number and the paths of its parts."""
    # Parentheses stand around what may be gone.
    parts = [part.strip(" ()").replace(".", "/") for part in layer.split("|")]
    shown = [f"{part}/" if (ROOT / part).is_dir() else f"{part}.py" for part in parts]
    return str(number), " · ".join(f"`{part}`" for part in shown)


def parts_table() -> str:
    """Return every feature and task, what it needs, and what needs it."""
    rows: list[tuple[str, ...]] = []
    for plugin in installed().plugins:
        needs = plugin.needs if isinstance(plugin, Feature) else ()
        needed_by = [f.name for f in installed().features if plugin.name in f.needs]
        rows.append(
            (
                f"`app/{'features' if isinstance(plugin, Feature) else 'tasks'}/{plugin.name}`",
                (plugin.__doc__ or "").partition(". ")[0].strip().rstrip("."),
                code(sorted(needs)),
                code(needed_by),
                "yes" if isinstance(plugin, Feature) and plugin.is_stored else "",
            )
        )
    return table(("folder", "what it is", "needs", "is needed by", "stores in SQL"), rows)


def code(names: Sequence[str]) -> str:
    """Return names as a document shows them."""
    return ", ".join(f"`{name}`" for name in names)


def labels(metric: MetricWrapperBase) -> str:
    """Return the label names of a metric."""
    return ", ".join(f"`{name}`" for name in metric._labelnames)  # noqa: SLF001  # no public name


def between(path: Path, *tables: str, begin: str = BEGIN) -> str:
    """Return a document with the text between its markers replaced, table by table."""
    rest, made = path.read_text(encoding="utf-8"), ""
    for content in tables:
        before, _, after = rest.partition(begin)
        _, _, rest = after.partition(END)
        made += f"{before}{begin}\n\n{content}\n\n{END}"
    return made + rest


def documents() -> dict[Path, str]:
    """Return path → content of everything that is made from the code."""
    docs = ROOT / "docs"
    leaving_out = docs / "howto" / "leave-a-feature-out.md"
    return {
        ROOT / ".env.example": env_example(),
        docs / "settings.md": between(docs / "settings.md", settings_table()),
        docs / "errors.md": between(docs / "errors.md", errors_table(), reasons_table()),
        docs / "chat.md": between(docs / "chat.md", *fields_tables()),
        docs / "metrics.md": between(docs / "metrics.md", metrics_table()),
        docs / "architecture.md": between(
            docs / "architecture.md", layers_table(), folders_table()
        ),
        leaving_out: between(leaving_out, parts_table()),
        MANIFEST: rules_manifest(),
    }


def main() -> None:
    """Write, or compare."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--check", action="store_true", help="compare only, write nothing")
    is_check = parser.parse_args().check
    for path, content in documents().items():
        if is_check and (not path.exists() or path.read_text(encoding="utf-8") != content):
            sys.exit(f"{path.name} is not what the code says; run `make docs`")
        if not is_check:
            path.write_text(content, encoding="utf-8")


if __name__ == "__main__":
    main()
