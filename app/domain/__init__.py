"""The types that all layers share. Nothing here reads, stores or sends."""
