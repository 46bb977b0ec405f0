"""The types that all layers share; nothing here does any I/O."""
