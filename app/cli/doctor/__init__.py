"""Checks of everything that the service needs, each with what to do; nothing is changed."""
