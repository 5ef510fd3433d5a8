"""What models are made of and served by: base classes, layers, tables, scorers."""
