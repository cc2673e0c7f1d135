"""Image classification: `/classify-image` and `/classify-image-batch`."""
