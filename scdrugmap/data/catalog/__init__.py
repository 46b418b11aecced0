"""The 60 published data sets: one TOML file each, read on first use, and what follows from all of them."""
