"""The catalogue of data sets and the card of each."""
