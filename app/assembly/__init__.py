"""The one place where parts are put together, for the server and for the scripts."""
