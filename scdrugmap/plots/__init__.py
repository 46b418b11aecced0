"""Figures: a polars data frame in, an Altair chart out. Pages and reports draw the same ones; no streamlit."""
