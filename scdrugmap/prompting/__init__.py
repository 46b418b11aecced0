"""Language models that are asked about cells: what they are told, asked and paid, and what their replies mean."""
