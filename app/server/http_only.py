"""No request is upgraded to another protocol: the upgrade is ignored, and the request answered."""

from typing import Any

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app.errors import BadRequestError
from app.server.request_head import without_upgrade


class HttpOnlyProtocol(HttpToolsProtocol):
    """Uvicorn's protocol, which reads requests for an upgrade as RFC 9110 has it."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401  # uvicorn's own
        super().__init__(*args, **kwargs)
        self.url = b""
        self._is_upgrade = False  # the message that is being parsed asks for one

    def feed(self, data: bytes) -> None:
        """Parse.

        Raises:
            HttpParserError: it isn't HTTP, or a callback raised; its context says what.

        """
        rest = data
        while rest:
            try:
                self.parser.feed_data(rest)
            except httptools.HttpParserUpgrade as upgrade:
                rest = self._without_upgrade() + rest[upgrade.args[0] :]
            else:
                return

    def on_message_complete(self) -> None:
        """Tell the request that its body is whole."""
        if not self._is_upgrade:
            super().on_message_complete()

    def _ignores_head(self) -> bool:
        """Return whether a head asks for an upgrade; it is parsed again without.

        Raises:
            BadRequestError: it asks for a connection to somewhere else.

        """
        self._is_upgrade = self.parser.should_upgrade()
        if self._is_upgrade and self.parser.get_method() == b"CONNECT":
            raise BadRequestError("This is no proxy.")
        return self._is_upgrade

    def _should_upgrade(self) -> bool:
        return False

    def _without_upgrade(self) -> bytes:
        """Return the head of a request without its upgrade to another protocol.

        After an upgrade the parser stops and takes no body, so that the body would be read as the
        next request.
        """
        first = b"%b %b HTTP/%b" % (
            *(self.parser.get_method(), self.url, self.parser.get_http_version().encode()),
        )
        self._is_upgrade = False
        self.parser = httptools.HttpRequestParser(self)
        self.parser.set_dangerous_leniencies(lenient_data_after_close=True)
        return without_upgrade(first, self.headers)
