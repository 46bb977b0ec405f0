"""Settings: where they come from, and what a valid value is."""
