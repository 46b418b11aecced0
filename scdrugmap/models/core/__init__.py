"""What all encoders share: cells in, ragged tokens, batches, layers, adapters, vectors out."""
