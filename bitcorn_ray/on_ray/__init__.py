"""The Ray runtime: sessions, maps over workers, versions of nodes, submitted jobs, monitoring."""
