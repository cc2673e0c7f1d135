"""How a model runs: the engines, and what they share of tokens, texts and numbers."""
