"""Sessions, the lake, sources: what differs between Sparks, clouds and catalogues is here alone."""
