"""What others rely on stays as it is: the OpenAPI document, the metrics' names, the settings.

Where a change is meant, `SNAPSHOTS=write .venv/bin/python -m pytest tests/test_snapshots.py` writes
them anew, and the difference is part of the commit.
"""

import json
import os
from pathlib import Path
from typing import Any

from httpx2 import AsyncClient
from prometheus_client.metrics import MetricWrapperBase
from serving import AllSettings

from app.main import installed

FOLDER = Path(__file__).parent / "snapshots"


def hold(name: str, found: Any) -> None:
    """Compare with the snapshot of that name, or write it."""
    file = FOLDER / name
    text = json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"
    if os.environ.get("SNAPSHOTS") == "write":
        file.write_text(text, encoding="utf-8")
    assert json.loads(file.read_text(encoding="utf-8")) == json.loads(text)


async def test_the_openapi_document_is_the_one_of_the_snapshot(client: AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    document["info"].pop("version")  # a release changes it
    hold("openapi.json", document)


def test_metrics_have_the_names_types_and_labels_of_the_snapshot() -> None:
    found = {
        metric._name: {"type": metric._type, "labels": list(metric._labelnames)}
        for group in installed().metrics()
        for metric in vars(group).values()
        if isinstance(metric, MetricWrapperBase)
    }
    hold("metrics.json", found)


def test_settings_have_the_names_and_defaults_of_the_snapshot() -> None:
    found = {
        name.upper(): {"type": str(field.annotation), "default": str(field.default)}
        for name, field in AllSettings.model_fields.items()
        if name != "models_file"  # whose default is a path of this machine
    }
    hold("settings.json", found)
