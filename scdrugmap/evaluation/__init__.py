"""How far a model can be trusted: protocols, heads, metrics, records."""
