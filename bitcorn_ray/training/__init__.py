"""One training: its configuration, job, run, lineage and reproduction."""
