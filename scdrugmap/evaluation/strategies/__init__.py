"""How a model becomes a classifier: a head on frozen embeddings, LoRA, or prompts."""
