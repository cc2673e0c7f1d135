"""How a conversion fails, and whether it would fail again."""

from app.errors import EngineError


class ConversionError(EngineError):
    """OpenVINO can't convert or run this model; torch may still be able to."""

    is_lasting = True  # the same files, libraries and settings would fail again


class InterruptedConversionError(ConversionError):
    """The conversion failed for what may be over by the next start, such as a full disk."""

    is_lasting = False
