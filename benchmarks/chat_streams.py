"""What a load of streams says: when each piece of each answer came, and the figures made of it."""

import json
import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

from app.loadtest.report import OK, percentile

HEAD_END = b"\r\n\r\n"
UNFINISHED = "unfinished"  # the client left after all patience
BROKEN = "broken"  # a 200 whose body holds an error, or nothing that can be read
# A tokeniser may need fewer tokens for a text than it was generated with.
EARLY = 0.9

ReadLine = Callable[[bytes], str | None]
CountTokens = Callable[[str], int]


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A request and the bytes of its answer; times are in seconds since the load's start."""

    started_s: float
    outcome: str
    raw: bytes
    marks: Sequence[tuple[int, float]]  # so many bytes had come at that time


@dataclass(frozen=True, slots=True, kw_only=True)
class Stream:
    """One answer: its pieces of text, and when they came."""

    started_s: float
    outcome: str  # an HTTP status, or what else became of it
    pieces: Sequence[tuple[float, str]]

    @property
    def ttft_s(self) -> float:
        """Seconds to the first token; infinite if none came."""
        return self.pieces[0][0] - self.started_s if self.pieces else math.inf

    @property
    def gaps_s(self) -> list[float]:
        """Seconds between one piece and the next."""
        return [later - sooner for (sooner, _), (later, _) in pairwise(self.pieces)]

    def text(self, until_s: float = math.inf) -> str:
        """Return what had come by then."""
        return "".join(text for at_s, text in self.pieces if at_s <= until_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """All streams of one load."""

    seconds: float
    streams: Sequence[Stream]
    cpu_share: float = math.nan  # of one core, that the client took; not a number: there was none


@dataclass(frozen=True, slots=True, kw_only=True)
class Figures:
    """What one load comes to."""

    tokens_per_s: float
    ttft_p50_ms: float
    ttft_p99_ms: float
    gap_p50_ms: float
    gap_p99_ms: float
    early_share: float  # of the answers, that ended before their bound
    cpu_share: float
    others: dict[str, int] = field(default_factory=dict)  # what became of those without an answer


def read_ndjson(line: bytes) -> str | None:
    """Return the token of a line; None for a line without."""
    said = json.loads(line)
    if "error" in said:
        raise ValueError(said["error"])
    token = said["token"]
    return token if isinstance(token, str) else None


def read_openai(line: bytes) -> str | None:
    """Return the content of one of OpenAI's chunks; None for a line without."""
    if not line.startswith(b"data:") or line == b"data: [DONE]":
        return None
    said = json.loads(line[5:])
    if "error" in said:
        raise ValueError(said["error"])
    choices = said.get("choices")
    token = choices[0].get("delta", {}).get("content") if choices else None
    return token if isinstance(token, str) else None


def _chunks(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the chunks of an answer's body, and where each begins in the raw bytes."""
    head, _, body = raw.partition(HEAD_END)
    at = len(head) + len(HEAD_END)
    if b"chunked" not in head.lower():
        yield at, body
        return
    while (end := raw.find(b"\r\n", at)) >= 0:
        size = int(raw[at:end].split(b";")[0] or b"0", 16)
        if not size:
            return
        yield end + 2, raw[end + 2 : end + 2 + size]
        at = end + 2 + size + 2


def _lines(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield the lines of an answer that aren't empty, and where each ends in the raw bytes."""
    begun = b""
    for at, chunk in _chunks(raw):
        here = 0
        while (end := chunk.find(b"\n", here)) >= 0:
            line = (begun + chunk[here:end]).strip()
            begun, here = b"", end + 1
            if line:
                yield at + here, line
        begun += chunk[here:]


def read_stream(exchange: Exchange, read_line: ReadLine) -> Stream:
    """Take an answer apart; each piece came when the last byte of its line had."""
    sizes = [size for size, _ in exchange.marks]
    pieces: list[tuple[float, str]] = []
    outcome = exchange.outcome
    if outcome in {OK, UNFINISHED}:
        try:
            for end, line in _lines(exchange.raw):
                if text := read_line(line):
                    pieces.append((exchange.marks[bisect_left(sizes, end)][1], text))
        except (ValueError, KeyError):
            outcome = BROKEN
    if outcome == OK and not pieces:
        outcome = BROKEN
    return Stream(started_s=exchange.started_s, outcome=outcome, pieces=pieces)


def summarise(load: Load, *, max_tokens: int, count_tokens: CountTokens) -> Figures:
    """Make the figures of one load.

    Args:
        load: its streams.
        max_tokens: that each answer was bound to.
        count_tokens: the model's own tokeniser. Pieces aren't tokens everywhere: some servers
            hold text back until a word is whole.

    """
    good = [stream for stream in load.streams if stream.outcome == OK]
    ttfts = sorted(stream.ttft_s for stream in load.streams)
    gaps = sorted(gap for stream in load.streams for gap in stream.gaps_s)
    tokens = sum(count_tokens(stream.text(load.seconds)) for stream in load.streams)
    early = sum(count_tokens(stream.text()) < EARLY * max_tokens for stream in good)
    return Figures(
        tokens_per_s=tokens / load.seconds,
        ttft_p50_ms=percentile(ttfts, 0.5) * 1000,
        ttft_p99_ms=percentile(ttfts, 0.99) * 1000,
        gap_p50_ms=percentile(gaps, 0.5) * 1000,
        gap_p99_ms=percentile(gaps, 0.99) * 1000,
        early_share=early / len(good) if good else math.nan,
        cpu_share=load.cpu_share,
        others=dict(Counter(s.outcome for s in load.streams if s.outcome != OK)),
    )
