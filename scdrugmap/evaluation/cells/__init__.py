"""Labelled cells, their groups, and what is known of a data set without loading it."""
