"""Builders that turn the readable sources of the sample corpus into office files."""
