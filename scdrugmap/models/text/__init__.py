"""The code of every text model: cells become sentences, and transformers reads them."""
