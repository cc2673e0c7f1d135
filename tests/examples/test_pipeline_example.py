"""`examples/pipeline`: as its README shows it, on torch, which converts nothing."""

import json
import re
import shutil
from pathlib import Path

import pytest
from serving import serving

ROOT = Path(__file__).parents[2]
EXAMPLE = ROOT / "examples" / "pipeline"


async def test_it_sorts_letters_by_two_other_models(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "model.py", tmp_path)
    entries = (EXAMPLE / "models.toml").read_text("utf-8").replace("../..", str(ROOT))
    entries = entries.replace('source = "package:', 'engine = "torch"\nsource = "package:')
    readme = (EXAMPLE / "README.md").read_text("utf-8")
    asked = re.findall(r"-d '(\".*\")'\n(.*)\n", readme)
    async with serving(tmp_path, entries) as client:
        for body, shown in asked:
            headers = {"Content-Type": "application/json"}
            ticket = (await client.post("/predict/triage", content=body, headers=headers)).json()
            expected = json.loads(shown)
            assert ticket.pop("similarity") == pytest.approx(expected.pop("similarity"), abs=0.02)
            assert ticket == expected
    assert len(asked) == 2
