"""`python -m scdrugmap` is the command line."""

from scdrugmap.cli import main

main()
