"""The settings in groups, each of which is a part of the service."""
