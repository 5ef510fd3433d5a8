"""One function a stage: reads tables, calls the layers below, writes tables."""
