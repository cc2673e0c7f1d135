"""Whether what models are asked and answer has shifted: distributions against a reference."""
