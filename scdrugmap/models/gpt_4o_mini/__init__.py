"""GPT-4o mini, asked over the network; scdrugmap.evaluation.prompting asks it."""
