"""ASGI middleware; `app/bootstrap/middleware.py` has its order."""
