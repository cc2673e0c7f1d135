"""How a class of the operator's own runs: what it offers, its types as JSON, and its calls."""
