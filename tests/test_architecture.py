"""Documents name only files that exist, and what is made from the code is what the code says."""

import re
from pathlib import Path

import pytest
import yaml

from scripts.document import first_sentence, folders_table

ROOT = Path(__file__).parent.parent
HOWTO = ROOT / "docs" / "howto"
DOCUMENTS = sorted(
    [
        *(ROOT / name for name in ("README.md", "CONTRIBUTING.md")),
        *(ROOT / "docs").rglob("*.md"),
        *(
            ROOT / name / "README.md"
            for name in ("deploy", "deploy/kubernetes", "deploy/ray", "benchmarks")
        ),
        *(ROOT / ".github").rglob("*.md"),
    ]
)
# `app/main.py`, also in a block of code; not `/app/main.py`, which is a path of an image.
FULL_PATH = re.compile(
    r"(?<![\w/.-])(?:app|tests|scripts|docs|deploy|benchmarks)/\w[\w./*-]*+(?!\{)"
)
# `http/deps.py`: a file of app/, or of a folder beside the document.
SHORT_PATH = re.compile(r"`([a-z_]+(?:/[\w*-]+)*/[\w*-]+\.[a-z]{2,4})`")
LINK = re.compile(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)")
CODE_BLOCK = re.compile(r"^ *```.*?^ *```$", re.MULTILINE | re.DOTALL)
CODE_SPAN = re.compile(r"`[^`\n]*`")
BROKEN = "Look in `app/api/noting.py`, `http/gone.py`, and [there](decisions/0099-none.md)."
# What guides let their reader make.
MADE = ("app/features/moderation/", "app/tasks/language_detection/", "letters/")


def missing(text: str, document: Path) -> list[str]:
    """Return the paths that a document tells and that aren't there."""
    told = {path.rstrip(".-") for path in FULL_PATH.findall(text)} | set(SHORT_PATH.findall(text))
    folders = (ROOT, ROOT / "app", document.parent)
    lost = {path for path in told if not any(list(folder.glob(path)) for folder in folders)}
    return sorted(path for path in lost if not path.startswith(MADE))


def broken(text: str, document: Path) -> list[str]:
    """Return the links of a document that lead nowhere."""
    links = LINK.findall(CODE_SPAN.sub("", CODE_BLOCK.sub("", text)))
    return [link for link in links if not (document.parent / link).exists()]


def name_of(document: Path) -> str:
    return str(document.relative_to(ROOT))


@pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
def test_paths_that_a_document_tells_are_there(document: Path) -> None:
    assert missing(document.read_text("utf-8"), document) == []


@pytest.mark.parametrize("document", [*DOCUMENTS, ROOT / "CHANGELOG.md"], ids=name_of)
def test_links_of_a_document_lead_somewhere(document: Path) -> None:
    assert broken(document.read_text("utf-8"), document) == []


def test_what_is_gone_is_found() -> None:
    document = ROOT / "docs" / "architecture.md"
    assert missing(BROKEN, document) == ["app/api/noting.py", "http/gone.py"]
    assert broken(BROKEN, document) == ["decisions/0099-none.md"]


def test_every_folder_of_app_says_what_is_decided_there() -> None:
    table = folders_table()
    for folder in {file.parent for file in (ROOT / "app").rglob("*.py")} - {ROOT / "app"}:
        sentence = first_sentence(folder / "__init__.py")
        assert f"| `{folder.relative_to(ROOT)}/` | {sentence} |" in table


def test_a_folder_that_says_nothing_is_refused(tmp_path: Path) -> None:
    (tmp_path / "__init__.py").touch()
    with pytest.raises(SystemExit, match="doesn't say what is decided there"):
        first_sentence(tmp_path / "__init__.py")


def test_the_guides_and_the_decisions_are_listed() -> None:
    guides = {path.name for path in HOWTO.glob("*.md")} - {"README.md"}
    assert set(LINK.findall((HOWTO / "README.md").read_text("utf-8"))) == guides
    listed = LINK.findall((ROOT / "docs" / "architecture.md").read_text("utf-8"))
    decisions = {f"decisions/{path.name}" for path in (ROOT / "docs" / "decisions").iterdir()}
    assert decisions - set(listed) == set()


def test_the_forms_of_the_issue_tracker_are_forms() -> None:
    forms = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").iterdir())
    assert [form.name for form in forms] == ["bug.yml", "feature.yml", "model.yml"]
    for form in forms:
        read = yaml.safe_load(form.read_text("utf-8"))
        assert {"name", "description", "body"} <= read.keys(), form
        for field in read["body"]:
            assert field["type"] in {"markdown", "textarea", "input", "dropdown"}
            assert field["type"] == "markdown" or field["attributes"]["label"], form
