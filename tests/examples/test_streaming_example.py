"""`examples/streaming`: as its README shows it."""

import re
import shutil
from pathlib import Path

from serving import serving

EXAMPLE = Path(__file__).parents[2] / "examples" / "streaming"


async def test_it_answers_as_its_readme_says(tmp_path: Path) -> None:
    shutil.copy(EXAMPLE / "model.py", tmp_path)
    readme = (EXAMPLE / "README.md").read_text("utf-8")
    asked = re.findall(r"localhost:8000(\S+) .*-d '(.*)'\n((?:[{\"].*\n)+)", readme)
    async with serving(tmp_path, (EXAMPLE / "models.toml").read_text("utf-8")) as client:
        for path, body, shown in asked:
            headers = {"Content-Type": "application/json"}
            answer = await client.post(path, content=body, headers=headers)
            assert answer.text.rstrip("\n") == shown.rstrip("\n")
    assert [path for path, _, _ in asked] == ["/predict/tale/stream", "/predict/tale"]
