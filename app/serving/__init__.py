"""Which index answers: load, swap, fall back."""
