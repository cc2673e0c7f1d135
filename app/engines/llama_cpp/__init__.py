"""How GGUF chat models run in this process, and which JSON Schemas their grammars enforce."""
