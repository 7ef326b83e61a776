"""The Ray runtime: sessions, maps over workers, versions, jobs, monitoring."""
