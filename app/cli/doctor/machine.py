"""Check the machine: the documents, disk space, the folder for copies and the port."""

from __future__ import annotations

import errno
import http.client
import os
import shutil
import socket
import tempfile
import urllib.request
from pathlib import Path

from app.cli.doctor.finding import Finding, fail, ok, warn
from app.config.settings import Settings
from app.documents.discovery import walk
from app.http.schemas import LivenessResponse
from app.http.server.sockets import check_listening

_MB = 1024 * 1024
# The space for a first index, whose size is not known yet.
_LEAST_FREE_BYTES = 256 * _MB
_PORT_TIMEOUT_S = 2.0
_MAX_LIVENESS_BYTES = 1024


def check_documents(settings: Settings) -> Finding:
    """Check that the folder of documents can be read, and holds some."""
    folder = settings.documents.dir
    if not folder.is_dir():
        return fail("documents", f"there is no folder {folder}", "create it, or set DOCUMENTS_DIR")
    if not os.access(folder, os.R_OK | os.X_OK):
        return fail("documents", f"{folder} cannot be read", "allow this user to read it")
    files = walk(folder)
    if not files:
        return warn("documents", f"{folder} holds no documents", "put some there, or set DOCUMENTS_DIR")
    return ok("documents", f"{folder} holds {len(files):,} documents")


def check_room(settings: Settings, index_bytes: int) -> Finding:
    """Check the disk space for the next index, which is built beside the served one.

    Args:
        index_bytes: size of the served index; 0 if there is none, or if it is in a database.
    """
    folder = _nearest(settings.index.dir)
    if settings.database.url is not None:
        return ok("disk", "the index is in the database")
    free, needed = shutil.disk_usage(folder).free, max(2 * index_bytes, _LEAST_FREE_BYTES)
    text = f"{free / _MB:,.0f} MB are free for {settings.index.dir}"
    if free < needed:
        return fail("disk", text, f"free some space: building an index may need {needed / _MB:,.0f} MB")
    if not os.access(folder, os.W_OK):
        return warn("disk", f"{settings.index.dir} is read-only", "reindex where it can be written to")
    return ok("disk", text)


def check_scratch(settings: Settings, index_bytes: int) -> Finding:
    """Check that the folder for copies can be written to, and has space.

    Servers that may not write to the index copy it there, and reader processes may use it, too.
    """
    folder = settings.index.scratch_dir or Path(tempfile.gettempdir())
    try:
        with tempfile.TemporaryFile(dir=folder) as file:
            file.write(b"1")
            file.flush()
        free = shutil.disk_usage(folder).free
    except OSError as error:
        return fail("scratch", f"{folder} cannot be written to ({error.strerror})", "set SCRATCH_DIR")
    if free < 2 * index_bytes:
        text = f"{folder} has {free / _MB:,.0f} MB free, and two copies of the index need more"
        return warn("scratch", text, "free some space, or set SCRATCH_DIR")
    return ok("scratch", f"{folder} can be written to, {free / _MB:,.0f} MB are free")


def check_port(settings: Settings) -> Finding:
    """Check that the server can listen, or that a server of this service already does."""
    where = f"{settings.server.host}:{settings.server.port}"
    try:
        check_listening(settings.server.host, settings.server.port)
    except socket.gaierror:
        return fail("port", f"{settings.server.host} is not an address of this machine", "set HOST")
    except PermissionError:
        return fail("port", f"this user may not listen on {where}", "set PORT to 1024 or more")
    except OSError as error:
        if error.errno == errno.EADDRINUSE and _served_already(settings):
            return ok("port", f"a server of this service listens on {where}")
        return fail("port", f"cannot listen on {where} ({error.strerror})", "set PORT or HOST")
    return ok("port", f"{where} is free")


def _served_already(settings: Settings) -> bool:
    """Return whether a server of this service listens on the address."""
    host = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}.get(settings.server.host, settings.server.host)  # noqa: S104
    request = urllib.request.Request(f"http://{host}:{settings.server.port}/health/live")
    try:
        with urllib.request.urlopen(request, timeout=_PORT_TIMEOUT_S) as response:  # noqa: S310
            answer = LivenessResponse.model_validate_json(response.read(_MAX_LIVENESS_BYTES))
    except (OSError, ValueError, http.client.HTTPException):
        return False
    return answer == LivenessResponse()


def _nearest(folder: Path) -> Path:
    """Return the folder itself, or its nearest parent that exists."""
    folder = folder.absolute()
    return next(each for each in (folder, *folder.parents) if each.exists())
