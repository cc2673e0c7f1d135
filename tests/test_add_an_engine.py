"""docs/howto/add-an-engine.md: its package, installed beside the service and asked by a client."""

import re
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from serving import serving

from app.engines.loader import known_engines

GUIDE = Path(__file__).parent.parent / "docs" / "howto" / "add-an-engine.md"
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
TABLES = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)
POINT = re.compile(r'^letters = "(letters:ENGINE)"$', re.MULTILINE)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The guide's package with the entry point that pip writes; gives its catalogue."""
    guide = GUIDE.read_text("utf-8")
    project, catalogue = TABLES.findall(guide)
    (code,) = CODE.findall(guide)
    site = tmp_path / "site"
    (site / "letters").mkdir(parents=True)
    (site / "letters" / "__init__.py").write_text(code, encoding="utf-8")
    described = site / "letters-1.0.dist-info"
    described.mkdir()
    (described / "METADATA").write_text("Metadata-Version: 2.1\nName: letters\nVersion: 1.0\n")
    (point,) = POINT.findall(project)
    (described / "entry_points.txt").write_text(f"[ml_api.engines]\nletters = {point}\n")
    monkeypatch.syspath_prepend(str(site))
    known_engines.cache_clear()
    yield catalogue
    known_engines.cache_clear()
    sys.modules.pop("letters", None)


async def test_a_model_runs_on_an_engine_of_another_package(tmp_path: Path, installed: str) -> None:
    async with serving(tmp_path, installed) as client:
        for text, label in {
            "Grüße aus Köln": "de",
            "Garçon, où êtes-vous?": "fr",
            "¿Dónde está?": "es",
        }.items():
            answer = await client.post("/predict", json={"text": text})
            assert answer.json()["label"] == label, answer.text
        (model,) = (await client.get("/models")).json()["models"]
    assert (model["engine"], model["state"]) == ("letters", "ready")


async def test_an_engine_is_not_asked_for_what_it_does_not_do(
    tmp_path: Path, installed: str
) -> None:
    catalogue = installed.replace("text-classification", "embedding") + "required = false\n"
    async with serving(tmp_path, catalogue) as client:
        (model,) = (await client.get("/models")).json()["models"]
    assert model["detail"] == (
        "engine 'letters' doesn't do embedding; these do: auto, torch, openvino,"
        " llama_cpp, remote, fake"
    )
