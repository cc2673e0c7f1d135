"""The sentiment data: which rated texts count, what label they get and on which side they land."""

import hashlib
import io
import tarfile
from pathlib import Path

import pytest

from scripts import sentiment_data
from scripts.sentiment_data import (
    FILES,
    Example,
    check_disjoint,
    check_sha256,
    load_examples,
    parse_archive,
    parse_ratings,
    split_of,
)


def archive_of(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            tar.addfile(entry, io.BytesIO(content))
    return buffer.getvalue()


def example(text: str, split: sentiment_data.Split) -> Example:
    return Example(text=text, label=1, domain="tweets", split=split)


def test_a_line_becomes_a_text_with_the_sign_of_its_rating_as_label() -> None:
    content = b"1\t2.27\tA splash.\r\n2\t-0.6\tToo tepid.\r\n"
    found = [(e.text, e.label, e.domain) for e in parse_ratings(content, "movie reviews")]
    assert found == [("A splash.", 1, "movie reviews"), ("Too tepid.", 0, "movie reviews")]


@pytest.mark.parametrize(
    ("rating", "labels"),
    [("0.5", [1]), ("-0.5", [0]), ("0.4999", []), ("-0.4999", []), ("0", []), ("4", [1])],
)
def test_texts_rated_nearer_to_zero_than_a_half_are_left_out(
    rating: str, labels: list[int]
) -> None:
    content = f"1\t{rating}\tSome text.\n".encode()
    assert [e.label for e in parse_ratings(content, "tweets")] == labels


def test_texts_are_stripped_and_read_as_utf_8() -> None:
    content = "7_1\t1.5\t  A clichéd but warm tale.\t \r\n".encode()
    assert [e.text for e in parse_ratings(content, "tweets")] == ["A clichéd but warm tale."]


def test_a_tab_or_a_rare_line_separator_inside_a_text_stays_in_it() -> None:
    content = "1\t1.5\tone\ttwo\u2028three\u0085four\n2\t1\tnext\n".encode()
    found = [e.text for e in parse_ratings(content, "tweets")]
    assert found == ["one\ttwo\u2028three\u0085four", "next"]


def test_blank_lines_are_skipped() -> None:
    assert parse_ratings(b"\r\n1\t1\tText.\r\n\r\n", "tweets")[0].text == "Text."


@pytest.mark.parametrize("line", [b"1\t2.0", b"1\tgood\tText.", b"1\t2.0\t \t", b"no tabs"])
def test_a_line_of_another_shape_is_named_with_domain_and_number(line: bytes) -> None:
    with pytest.raises(ValueError, match="tweets, line 2: expected id, rating and text"):
        parse_ratings(b"1\t1\tText.\n" + line + b"\n", "tweets")


def test_a_text_is_in_the_test_split_when_its_hash_divides_by_eight() -> None:
    texts = [f"text {number}" for number in range(400)]
    for text in texts:
        divides = int(hashlib.sha256(text.encode("utf-8")).hexdigest(), 16) % 8 == 0
        assert split_of(text) == ("test" if divides else "train")
    assert 30 <= sum(split_of(text) == "test" for text in texts) <= 70


def test_the_split_ignores_blanks_around_a_text() -> None:
    texts = [f"text {number}" for number in range(50)]
    assert [split_of(f" \t{text}\r\n") for text in texts] == [split_of(text) for text in texts]


def test_the_split_of_known_texts_never_moves() -> None:
    test = [
        text
        for text in ("three", "four", "five", "six", "café", "naïve")
        if split_of(text) == "test"
    ]
    assert test == ["four", "five", "naïve"]


def test_no_text_is_in_both_splits_even_if_it_occurs_more_than_once() -> None:
    lines = "".join(f"{n}\t{1 if n % 2 else -1}\ttext {n % 40}\r\n" for n in range(120)).encode()
    found = parse_archive(archive_of(dict.fromkeys(FILES.values(), lines)))
    training = {e.text for e in found if e.split == "train"}
    test = {e.text for e in found if e.split == "test"}
    assert len(found) == 480
    assert training
    assert test
    assert not training & test


def test_a_text_in_both_splits_is_refused() -> None:
    with pytest.raises(ValueError, match="1 texts are in both splits, for example 'same'"):
        check_disjoint([example("same", "train"), example(" same ", "test")])
    check_disjoint([example("same", "train"), example("same", "train"), example("other", "test")])


def test_an_archive_without_one_of_the_files_is_refused() -> None:
    with pytest.raises(KeyError, match="movieReviewSnippets"):
        parse_archive(archive_of({"other.txt": b""}))


def test_other_bytes_than_the_pinned_archive_are_refused(tmp_path: Path) -> None:
    (tmp_path / sentiment_data.ARCHIVE).write_bytes(b"not the archive")
    with pytest.raises(ValueError, match="delete it and retry"):
        load_examples(tmp_path)
    with pytest.raises(ValueError, match="sha256"):
        check_sha256(b"")
