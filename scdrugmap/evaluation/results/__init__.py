"""Records of runs, their predictions, and the table of scores that is derived from them."""
