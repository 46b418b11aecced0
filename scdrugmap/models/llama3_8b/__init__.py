"""Text models of the Hugging Face Hub: a cell is written as a sentence of genes and embedded as a text."""
