"""What is read of a GGUF file before llama.cpp opens it, and how tokens are found in a text."""

import struct
from pathlib import Path
from typing import Any, cast

import numpy as np
import pytest
from gguf_files import write
from smollm import gguf

from app.engines.base import Activation, Task
from app.engines.llama_cpp.gguf_header import LIST, read_header
from app.engines.llama_cpp.gguf_task import task_of
from app.engines.llama_cpp.pairs import cut_pair
from app.engines.llama_cpp.places import places
from app.engines.llama_cpp.server import find_file, is_gguf
from app.engines.llama_cpp.texts import EncodedPair, LlamaCppRanker
from app.engines.llama_cpp.tokens import LlamaTokenizer, Token
from app.errors import EngineError


def said(tmp_path: Path, **fields: Any) -> Task:
    """Return the task of a file that says this."""
    named = {name.replace("__", "."): value for name, value in fields.items()}
    values = {"general.architecture": "some", **{f"some.{k}": v for k, v in named.items()}}
    return task_of(read_header(write(tmp_path / "x.gguf", values, {"a": np.zeros((2, 3))})))


def test_the_task_is_what_the_header_says_of_pooling_and_attention(tmp_path: Path) -> None:
    assert said(tmp_path) == Task.CHAT
    assert said(tmp_path, pooling_type=0) == Task.CHAT
    assert said(tmp_path, attention__causal=True) == Task.CHAT
    assert said(tmp_path, attention__causal=False) == Task.EMBEDDING
    assert [said(tmp_path, pooling_type=n) for n in (1, 2, 3)] == [Task.EMBEDDING] * 3
    assert said(tmp_path, pooling_type=4, attention__causal=False) == Task.RANKING
    assert said(tmp_path, pooling_type=77) == Task.CHAT, "a pooling of tomorrow"


def test_a_real_file_is_read_in_full() -> None:
    header = read_header(gguf())
    assert (header.architecture, task_of(header)) == ("llama", Task.CHAT)
    assert header.get("context_length") == 8192
    assert header.shapes["token_embd.weight"] == (576, 49152)
    assert header.metadata["tokenizer.ggml.tokens"] == 49152, "long lists are lengths"


def test_values_and_shapes_are_those_of_the_file(tmp_path: Path) -> None:
    values = {
        "general.architecture": "some",
        "some.a": 3,
        "some.b": 0.5,
        "some.c": ["yes", "no"],
        "some.d": list(range(100)),
        "some.e": ["x"] * 100,
        "some.f": "text",
    }
    file = write(tmp_path / "x.gguf", values, {"one": np.zeros((2, 3)), "two": np.zeros(5)})
    header = read_header(file)
    assert dict(header.shapes) == {"one": (3, 2), "two": (5,)}
    got = [header.get(key) for key in "abcdef"]
    assert got == [3, 0.5, ["yes", "no"], 100, 100, "text"]
    assert header.get("g") is None


def test_a_header_that_is_cut_anywhere_or_damaged_is_one_line(tmp_path: Path) -> None:
    values = {"general.architecture": "some", "some.a": ["yes", "no"], "some.b": 1.5}
    whole = write(tmp_path / "x.gguf", values, {"one": np.zeros((2, 3))}).read_bytes()
    end = whole.index(b"one") + 3 + 4 + 16 + 4 + 8
    file = tmp_path / "bad.gguf"
    for size in range(end):
        file.write_bytes(whole[:size])
        with pytest.raises(EngineError, match=r"bad\.gguf: its header is cut off or damaged"):
            read_header(file)
    read_header(write(tmp_path / "x.gguf", values, {}))
    for place in range(4, 40):
        file.write_bytes(whole[:place] + b"\xff" * 9 + whole[place + 9 :])
        with pytest.raises(EngineError, match=r"its header is cut off or damaged"):
            read_header(file)
    with pytest.raises(EngineError, match="can't be read"):
        read_header(tmp_path / "nowhere.gguf")


def test_lists_in_lists_are_refused_however_deep(tmp_path: Path) -> None:
    file = tmp_path / "deep.gguf"
    key, lists = struct.pack("<Q1s", 1, b"k"), struct.pack("<IQ", LIST, 1) * 5_000
    file.write_bytes(b"GGUF" + struct.pack("<IQQ", 3, 0, 1) + key + struct.pack("<I", LIST) + lists)
    with pytest.raises(EngineError, match="a list of lists"):
        read_header(file)


def test_a_folder_stands_for_its_only_file(tmp_path: Path) -> None:
    with pytest.raises(EngineError, match=r"has no \.gguf file; let source name one"):
        find_file(tmp_path)
    assert not is_gguf(tmp_path)
    one = write(tmp_path / "one.gguf", {"general.architecture": "some"}, {})
    assert find_file(tmp_path) == find_file(one) == one
    assert is_gguf(tmp_path)
    assert is_gguf(one)
    write(tmp_path / "two.gguf", {"general.architecture": "some"}, {})
    with pytest.raises(EngineError, match=r"several \.gguf files \(one\.gguf, two\.gguf\)"):
        find_file(tmp_path)
    (tmp_path / "config.json").write_text("{}", encoding="utf-8")
    (tmp_path / "model.safetensors").touch()
    assert not is_gguf(tmp_path), "transformers' own weights come first"
    assert not is_gguf(None)


@pytest.mark.parametrize(
    ("text", "pieces", "expected"),
    [
        ("good film", [" good", " film"], ["good", "film"]),
        ("Café  PLAYS\n it", [" cafe", " play", "s", " it"], ["Café", "PLAY", "S", "it"]),
        ("a\n\nb", ["a", "\n\n", "b"], ["a", "", "b"]),
        ("我喜 film", ["我", "喜", " film"], ["我", "喜", "film"]),
        ("ein xyzzy film", ["ein", "[UNK]", " film"], ["ein", "", "film"]),
        ("ﬁlm Å ½", ["film", "a", "1", "⁄2"], ["ﬁlm", "Å", "½", "½"]),  # noqa: RUF001  # compatible forms
        ("a \u0301b", ["▁a", "▁b"], ["a", "b"]),
    ],
)
def test_tokens_are_found_in_the_text(text: str, pieces: list[str], expected: list[str]) -> None:
    found = places(text, [piece.encode() for piece in pieces])
    assert [text[start:end] for start, end in found] == expected
    starts = [start for start, _ in found]
    assert starts == sorted(starts)


def test_a_long_text_is_looked_at_part_by_part() -> None:
    text = " ".join(["ein", "ﬁlm", "\u0301", "Å"] * 3_000)  # compatible forms
    found = places(text, [piece.encode() for piece in ("ein", "film", "a") * 3_000])
    assert {text[start:end] for start, end in found} == {"ein", "ﬁlm", "Å"}  # as above
    assert found[-1][1] == len(text)


def test_parts_of_a_character_stand_where_it_does() -> None:
    smile = "😀".encode()
    found = places("a😀b", [b"a", smile[:2], smile[2:3], smile[3:], b"b"])
    assert [found[0], found[3], found[4]] == [(0, 1), (1, 2), (2, 3)]
    assert all(place in {(1, 1), (1, 2)} for place in found[1:3])


class Letters:
    """A tokeniser with a token for each letter, and two for an x."""

    def tokens(self, text: str, *, special: bool = True) -> list[Token]:
        assert not special, "of pairs a special token is counted as text"
        return [
            Token(id=0, piece=piece) for c in text for piece in ([c.encode()] + [b""] * (c == "x"))
        ]


@pytest.mark.parametrize(
    ("pair", "room", "kept"),
    [
        (("abc", "defg"), 7, ("abc", "defg")),
        (("abc", "defg"), 6, ("abc", "def")),
        (("abcdefgh", "ij"), 6, ("abcd", "ij")),
        (("abcdefgh", "ijklmnop"), 7, ("abc", "ijkl")),
        (("abcdefghi", "jklmnopq"), 7, ("abcd", "jkl")),
        (("a", "bxxx"), 4, ("a", "bx")),
        (("a", "bcdxxx"), 5, ("a", "bcd")),
        (("abc", "def"), 1, ("", "d")),
        (("abc", "def"), 0, ("", "")),
    ],
)
def test_the_longer_text_of_a_pair_loses_its_end(
    pair: tuple[str, str], room: int, kept: tuple[str, str]
) -> None:
    cut = cut_pair(pair, Letters(), room=room)
    assert cut.pair == kept
    assert cut.is_truncated == (pair != kept)
    assert cut.tokens <= room


def test_a_query_that_spells_a_place_of_the_template_is_a_query_and_fits() -> None:
    ranker = LlamaCppRanker(
        None,
        cast("LlamaTokenizer", Letters()),
        device="cpu",
        max_tokens=30,
        frame_tokens=4,
        activation=Activation.NONE,
        label="fits",
    )
    (item,) = ranker.encode([("{document}" * 5, "abc")])
    assert isinstance(item, EncodedPair)
    query, text = item.pair
    assert query.startswith("{ document}{ doc")
    assert len(query) + len(text) + 4 == item.cost == 30
