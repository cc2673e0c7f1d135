"""What is said of chat by OpenTelemetry's conventions for generative AI: attributes and metrics.

The names are those of the conventions in development, open-telemetry/semantic-conventions-genai.
"""

from collections.abc import Mapping
from typing import Final

from opentelemetry.exporter.otlp.proto.http.metric_exporter import OTLPMetricExporter
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader
from opentelemetry.sdk.resources import Resource

from app.core.otlp_session import Session

TOKEN_TYPE: Final = "gen_ai.token.type"  # noqa: S105  # no password
# As the conventions advise.
SECONDS: Final = tuple(0.01 * 2**n for n in range(14))
FIRST_TOKEN_S: Final = (
    *(0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75),
    *(1.0, 2.5, 5.0, 7.5, 10.0),
)
TOKEN_S: Final = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5)
TOKENS: Final = tuple(float(4**n) for n in range(14))


class GenAiMeters:
    """The metrics of chat that a collector gets.

    Args:
        resource: what is said of the process.
        version: of this program.

    """

    def __init__(self, resource: Resource, version: str) -> None:
        exporter = OTLPMetricExporter(session=Session("metrics"))
        reader = PeriodicExportingMetricReader(exporter)
        self._provider = MeterProvider((reader,), resource=resource, shutdown_on_exit=False)
        meter = self._provider.get_meter("ml-api", version)
        self._tokens = meter.create_histogram(
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens of a request, by type.",
            explicit_bucket_boundaries_advisory=TOKENS,
        )
        self._seconds = meter.create_histogram(
            "gen_ai.server.request.duration",
            "s",
            "From the request to its last token.",
            explicit_bucket_boundaries_advisory=SECONDS,
        )
        self._first_token = meter.create_histogram(
            "gen_ai.server.time_to_first_token",
            "s",
            "From the request to its first token.",
            explicit_bucket_boundaries_advisory=FIRST_TOKEN_S,
        )
        self._token = meter.create_histogram(
            "gen_ai.server.time_per_output_token",
            "s",
            "Between two tokens, as the mean of a generation.",
            explicit_bucket_boundaries_advisory=TOKEN_S,
        )

    def record(  # what is measured of a generation
        self,
        attributes: Mapping[str, str],
        *,
        input_tokens: int | None,
        output_tokens: int,
        seconds: float,
        first_token_s: float | None,
        error: str | None,
    ) -> None:
        """Record a generation that is over.

        Args:
            attributes: of the conventions, the same as on its span.
            input_tokens: of the prompt; None where they aren't known.
            output_tokens: of the answer.
            seconds: from the request to the end.
            first_token_s: from the request to the first token; None where there was none.
            error: its code, where it failed.

        """
        shared = dict(attributes)
        if error is not None:
            self._seconds.record(seconds, {**shared, "error.type": error})
            return
        self._seconds.record(seconds, shared)
        if input_tokens is not None:
            self._tokens.record(input_tokens, {**shared, TOKEN_TYPE: "input"})
        self._tokens.record(output_tokens, {**shared, TOKEN_TYPE: "output"})
        if first_token_s is None:
            return
        self._first_token.record(first_token_s, shared)
        if output_tokens > 1:
            self._token.record((seconds - first_token_s) / (output_tokens - 1), shared)

    def close(self) -> None:
        """Export what waits; blocks."""
        self._provider.shutdown()
