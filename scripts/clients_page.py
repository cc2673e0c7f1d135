"""What docs/clients.md says of each client: what to install, and blocks that run as they stand."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

PAGE = Path(__file__).parent.parent / "docs" / "clients.md"
ADDRESS = "localhost:8000"  # in all blocks; the only thing that a check replaces
LANGUAGES = ("python", "js", "sh")
HEADING = re.compile(r"^(#{1,6}) (.+)$", re.MULTILINE)
INSTALL = re.compile(r"^`(pip|npm|apt-get) install (.+)`", re.MULTILINE)
BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
PRINTS = re.compile(r"(?:#|//) prints: (.+)$", re.MULTILINE)


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """A block of code, and the texts that its output must have."""

    language: str
    code: str

    @property
    def prints(self) -> tuple[str, ...]:
        """What its comments say that it prints."""
        return tuple(PRINTS.findall(self.code))

    def at(self, address: str) -> str:
        """Return the code, for a service at another address (`host:port`)."""
        return self.code.replace(ADDRESS, address)


@dataclass(frozen=True, slots=True, kw_only=True)
class Client:
    """A section of the page.

    Args:
        name: its heading.
        installer: `pip`, `npm` or `apt-get`; None if nothing is to be installed.
        packages: as the installer takes them.
        blocks: in their order.

    """

    name: str
    installer: str | None
    packages: tuple[str, ...]
    blocks: tuple[Block, ...]


def client_of(name: str, section: str) -> Client:
    """Return what a section says of its client."""
    install = INSTALL.search(section)
    return Client(
        name=name,
        installer=install[1] if install else None,
        packages=tuple(package.strip("'") for package in install[2].split()) if install else (),
        blocks=tuple(
            Block(language=language, code=code) for language, code in BLOCK.findall(section)
        ),
    )


def sections(text: str) -> Iterator[tuple[str, str]]:
    """Yield the heading and text of each section that is a client's."""
    headings = list(HEADING.finditer(BLOCK.sub(blanked, text)))
    ends = [*(heading.start() for heading in headings[1:]), len(text)]
    for heading, end in zip(headings, ends, strict=True):
        section = text[heading.end() : end]
        if BLOCK.search(section):
            yield heading[2], section


def blanked(block: re.Match[str]) -> str:
    """Return as much white space: a comment of code isn't a heading."""
    return " " * len(block[0])


def clients(text: str | None = None) -> Sequence[Client]:
    """Return the clients of the page, in its order."""
    page = PAGE.read_text(encoding="utf-8") if text is None else text
    return [client_of(name, section) for name, section in sections(page)]
