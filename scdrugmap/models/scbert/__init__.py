"""scBERT: one token for each of the model's genes, expressed or not."""
