"""docs/clients.md has blocks that can be run, and `make clients-check` notices those that fail."""

import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest

from scripts.clients_check import Outcome, run, table
from scripts.clients_environments import (
    APART,
    Environment,
    NotToBeHadError,
    environments,
    versions_of,
)
from scripts.clients_page import (
    ADDRESS,
    LANGUAGES,
    PAGE,
    Block,
    Client,
    client_of,
    clients,
    sections,
)

CLIENTS = clients()
NODE = shutil.which("node")
SECTION = """
`pip install 'some[extra]>=2' other_one`

```sh
# a comment, and no heading
echo localhost:8000 # prints: localhost
```
"""


def test_the_page_has_the_clients_that_the_check_counts_on() -> None:
    names = [client.name for client in CLIENTS]
    assert len(names) == len(set(names)) >= 40
    assert {name for clients in APART.values() for name in clients} <= set(names)
    assert not [name for name in names if " " in name], "make splits NAMES there"


@pytest.mark.parametrize("client", CLIENTS, ids=[client.name for client in CLIENTS])
def test_a_block_is_code_that_asks_the_service_and_says_what_it_prints(client: Client) -> None:
    asks = [block for block in client.blocks if ADDRESS in block.code]
    assert asks == list(client.blocks)
    assert all(block.prints for block in client.blocks)
    assert {block.language for block in client.blocks} <= set(LANGUAGES)
    for block in client.blocks:
        if block.language == "python":
            compile(block.code, client.name, "exec")


@pytest.mark.skipif(NODE is None, reason="there is no node on this machine")
def test_blocks_of_javascript_are_code(tmp_path: Path) -> None:
    assert NODE is not None
    for client in CLIENTS:
        for block in client.blocks:
            if block.language == "js":
                file = tmp_path / f"{client.name}.mjs"
                file.write_text(block.code, encoding="utf-8")
                subprocess.run([NODE, "--check", file], check=True)


def test_a_section_is_read_as_it_stands() -> None:
    text = f"# Page\n\nWords.\n\n### one\n{SECTION}\n## Versions\n\n| a | b |\n"
    ((name, section),) = sections(text)
    client = client_of(name, section)
    assert (client.name, client.installer) == ("one", "pip")
    assert client.packages == ("some[extra]>=2", "other_one")
    (block,) = client.blocks
    assert block.prints == ("localhost",)
    assert "echo 127.0.0.1:1 #" in block.at("127.0.0.1:1")
    found = versions_of(client, {"some": "2.1", "Other-One": "3", "else": "4"})
    assert list(found) == ["some 2.1", "other-one 3"]


@pytest.fixture
def here(tmp_path: Path) -> Environment:
    """An environment whose programs are those of the tests."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python").symlink_to(sys.executable)
    return Environment(folder=tmp_path, installer="pip", packages=())


@pytest.mark.parametrize(
    ("code", "reason"),
    [
        ("print('some Paris')  # prints: Paris", ""),
        ("print('Rome')  # prints: Paris", "it doesn't print ['Paris']"),
        ("print('Paris'); exit(3)  # prints: Paris", "status 3"),
        ("print('localhost:8000')  # prints: 127.0.0.1:1", ""),
        ("import time; time.sleep(60)  # prints: Paris", "it didn't end in time"),
    ],
)
def test_a_block_fails_by_its_status_its_output_and_its_time(
    here: Environment, tmp_path: Path, code: str, reason: str
) -> None:
    until_s = time.monotonic() + (0.5 if "sleep" in code else 60)
    block = Block(language="python", code=code)
    failure = run(block, tmp_path, here, "127.0.0.1:1", until_s=until_s)
    assert failure.startswith(reason)
    assert bool(failure) is bool(reason)


def test_an_installer_that_fails_says_why(tmp_path: Path) -> None:
    place = Environment(folder=tmp_path, installer="pip", packages=("nothing",))
    with pytest.raises(NotToBeHadError, match="the installer failed"):
        place.install("false", "torch==1")
    assert not (tmp_path / "installed.json").exists()


def test_clients_that_clash_have_environments_of_their_own(tmp_path: Path) -> None:
    places = environments(CLIENTS, tmp_path)
    assert set(APART) <= places.keys()
    assert places["node"].installer == "npm"
    for name, apart in APART.items():
        wanted = {package for c in CLIENTS if c.name in apart for package in c.packages}
        assert set(places[name].packages) == wanted
    assert "zod@3" not in places["node"].packages


def test_the_page_s_table_has_a_row_for_each_client() -> None:
    outcomes = {"a": Outcome(state="ok", versions=("a 1", "b 2"))}
    assert table(outcomes).splitlines()[-1] == "| a | a 1, b 2 | ok |"
    rows = PAGE.read_text("utf-8").partition("## Versions")[2].splitlines()
    listed = {row.split("|")[1].strip() for row in rows if row.startswith("|")}
    assert {client.name for client in CLIENTS} <= listed
