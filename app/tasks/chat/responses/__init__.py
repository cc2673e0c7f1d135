"""`/v1/responses`: chat as items that are kept, streamed events and tools of OpenAI's newer API."""
