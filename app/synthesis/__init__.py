"""An answer from passages. Each way to make one is a module, so that only what is set gets imported."""
