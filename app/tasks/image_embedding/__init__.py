"""Image embedding: `/embed-image`, from images to vectors."""
