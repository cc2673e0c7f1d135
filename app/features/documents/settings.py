"""Settings of documents."""

from pydantic import Field

from app.settings import Positive, Settings


class DocumentsSettings(Settings):
    """What can be set of documents."""

    max_documents_bytes: Positive = Field(
        16_777_216,
        description="Largest body of `/documents` and `/embed-batch`, in bytes; larger gets 413.",
    )
