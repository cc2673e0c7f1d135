"""Reads the file of a batch: what is wrong with it, and its lines from an offset on."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from app.features.openai_batches.file_service import FileService
from app.features.openai_batches.files import CHUNK_BYTES
from app.features.openai_batches.lines import LineChecker, LineCutter, cut_lines, read_line
from app.features.openai_batches.values import Batch, Line

# A larger line is parsed in a thread, so that the event loop isn't held.
QUICK_BYTES = 65_536


class InputFile:
    """The file of a batch.

    Args:
        files: where it is.
        batch: that reads it.
        max_line_bytes: of a line.

    """

    def __init__(self, files: FileService, batch: Batch, *, max_line_bytes: int) -> None:
        self._files = files
        self._key = batch.input_file_key
        self._endpoint = batch.endpoint
        self._max_line_bytes = max_line_bytes

    async def check(self, *, max_lines: int) -> LineChecker:
        """Return what says how many lines there are, and what is wrong with them."""
        checker = LineChecker(self._endpoint, max_lines=max_lines, max_bytes=self._max_line_bytes)
        async for chunk in self._files.chunks(self._key):
            await asyncio.to_thread(checker.feed, chunk)
            if checker.is_done:
                break
        checker.finish()
        return checker

    async def lines(self, offset: int) -> AsyncGenerator[Line]:
        """Yield the lines that begin at an offset, and those behind."""
        first, skipped = divmod(offset, CHUNK_BYTES)
        cutter = LineCutter(offset, self._max_line_bytes)

        async def rest() -> AsyncIterator[bytes]:
            begin = skipped
            async for chunk in self._files.chunks(self._key, first=first):
                yield chunk[begin:]
                begin = 0

        async for lines in cut_lines(rest(), cutter):
            for end, text in lines:
                if len(text) > QUICK_BYTES:
                    yield await asyncio.to_thread(read_line, end, text)
                else:
                    yield read_line(end, text)
