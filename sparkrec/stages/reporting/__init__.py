"""Pages for people about runs that are finished: they need no Spark."""
