"""How an `.onnx` file runs on ONNX Runtime: its types as JSON, its batches, its first calls."""
