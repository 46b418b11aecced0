"""GPT-4o mini, asked over the network; scdrugmap.evaluation.strategies.prompt asks it."""
