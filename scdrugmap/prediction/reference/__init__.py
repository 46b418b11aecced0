"""Reference heads: fitted on labelled studies, measured on studies they had not seen, calibrated, stored."""
