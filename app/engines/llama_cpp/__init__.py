"""How GGUF models run in this process: chat, embedders, rerankers, and JSON Schemas of chat."""
