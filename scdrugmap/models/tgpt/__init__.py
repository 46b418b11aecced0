"""tGPT: a cell is a sentence of its top genes, read by a GPT-2."""
