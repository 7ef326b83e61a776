"""One training: its configuration, job, run and lineage."""
