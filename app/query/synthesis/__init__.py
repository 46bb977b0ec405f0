"""Make an answer from passages; one module for each way, so that only what is set gets imported."""
