"""Pages for people: about evaluations that are finished, which needs no Spark, and about many nights."""
