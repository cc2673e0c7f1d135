"""How a model runs: engines, tokenisers, conversion, and what of a model folder they read."""
