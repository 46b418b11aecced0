"""From weights on a disk or on the Hub to a filled network: found, downloaded, converted, accounted for."""
