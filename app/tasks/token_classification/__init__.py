"""Token classification: `/ner`, from texts to the entities in them."""
