"""docs/howto/serve-a-python-model.md: its class, its entry and its requests."""

import json
import re
from pathlib import Path

from serving import serving

GUIDE = (Path(__file__).parent.parent / "docs/howto/serve-a-python-model.md").read_text("utf-8")
CODE = re.compile(r"^```python\n(.*?)^```", re.MULTILINE | re.DOTALL)
ENTRY = re.compile(r"^```toml\n(.*?)^```", re.MULTILINE | re.DOTALL)


async def test_the_class_of_the_guide_answers_as_the_guide_says(tmp_path: Path) -> None:
    code, *_ = CODE.findall(GUIDE)
    entry, *_ = ENTRY.findall(GUIDE)
    (tmp_path / "model.py").write_text(code, encoding="utf-8")
    (tmp_path / "rate.txt").write_text("5000", encoding="utf-8")
    async with serving(tmp_path, entry) as client:
        flat = {"rooms": 3, "square_metres": 80}
        answer = await client.post("/predict/prices", json=flat)
        assert answer.text in GUIDE
        items = [flat, {"rooms": "many"}]
        answers = await client.post("/predict-batch/prices", json={"items": items})
    shown = re.search(r'^{"model":"prices".*$', GUIDE, re.MULTILINE)
    assert shown
    assert answers.text.startswith(shown[0].partition(",…")[0])
    assert json.dumps(flat) in GUIDE
