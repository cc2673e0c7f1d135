"""How a conversion fails, and whether it would fail again."""

from collections.abc import Mapping

from app.errors import EngineError


class ConversionError(EngineError):
    """OpenVINO can't convert or run this model; torch may still be able to."""

    is_lasting = True  # the same files, libraries and settings would fail again


class InterruptedConversionError(ConversionError):
    """The conversion failed, but may work at the next start: the disk was full, for example."""

    is_lasting = False


class DisagreementError(ConversionError):
    """The converted model's answers differ from those of the one it was made of."""

    def __init__(self, figures: Mapping[str, float]) -> None:
        self.figures = figures
        differences = ", ".join(f"{name} {value:.4g}" for name, value in figures.items())
        super().__init__(f"the converted model disagrees with torch: {differences}")
