"""Checks of everything that the service needs, with advice for each problem; nothing is changed."""
