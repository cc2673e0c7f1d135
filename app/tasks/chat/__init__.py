"""Chat: `/chat` and `/chat/stream`, whole answers and streams of tokens."""
