"""Making indexes from documents."""
