"""`examples/image-classifier`: trained, served and asked as its README says."""

from pathlib import Path
from typing import Any

import pytest
from example_scripts import EXAMPLES, script_in
from serving import serving

EXAMPLE = EXAMPLES / "image-classifier"


@pytest.fixture
def train(tmp_path: Path) -> Any:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed; the example needs it")
    return script_in(tmp_path, "image-classifier")


async def test_it_reads_a_digit(tmp_path: Path, train: Any) -> None:
    assert train.train(epochs=4) > 0.8
    entry = (EXAMPLE / "models.toml").read_text("utf-8")
    digit = (tmp_path / "digits" / "digit.png").read_bytes()
    async with serving(tmp_path, entry + 'engine = "torch"\n') as client:
        answer = (
            await client.post("/classify-image", files={"image": ("digit.png", digit)})
        ).json()
    assert (answer["label"], answer["model"]) == ("8", "digits")
    assert answer["score"] > 0.5
