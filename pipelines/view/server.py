"""The process behind `shardmill view`: its port, its address, its browser, and its end."""

from __future__ import annotations

import errno
import os
import socket
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from typing import Any, Final

from converter.errors import ShardmillError, UsageError
from converter.storage.location import AnyPath

DEFAULT_PORT: Final = 8765
MAX_PORT: Final = 65_535
HOST: Final = "127.0.0.1"


def serve(
    out: AnyPath,
    *,
    port: int | None = None,
    browser: bool = True,
    announce: Callable[[str, Sequence[str]], object] = print,
) -> None:
    """Shows a data set in a browser on this machine, until Ctrl-C.

    Args:
        out: its folder, or its address in a store.
        port: of this machine; None for `DEFAULT_PORT`, or any that is free.
        browser: whether to open one.
        announce: called with the address, which holds a token, and with lines of advice.

    Raises:
        DatasetError: there is no finished data set there.
        ShardmillError: Flask is missing, or the port is in use.
        UsageError: there is no such port.
    """
    if port is not None and not 0 <= port <= MAX_PORT:
        raise UsageError(f"port {port} is out of range: up to {MAX_PORT}")
    try:
        from pipelines.view import guards, web  # noqa: PLC0415 (Flask)
    except ModuleNotFoundError as error:
        if error.name not in ("flask", "werkzeug", "markupsafe"):
            raise
        raise ShardmillError(
            "viewing needs Flask: pip install flask (or install shardmill with its extra 'view': "
            "docs/install.md)"
        ) from error
    from pipelines.view.albums import open_data_set  # noqa: PLC0415 (Pillow)

    data, token = open_data_set(out), guards.make_token()
    server = _make_server(web.make_app(data, token), _listen(port))
    address = f"http://{HOST}:{server.port}/?{guards.TOKEN}={token}"
    announce(address, [*data.faults[:3], *_advise(server.port, browser=browser)])
    if browser and _has_screen():
        # A thread, for a browser may take seconds to answer.
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()
    server.serve_forever(poll_interval=0.1)  # Ctrl-C ends it


def _listen(port: int | None) -> socket.socket:
    """A socket that listens on the loopback address alone."""
    for number in (DEFAULT_PORT, 0) if port is None else (port,):
        line = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        line.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            line.bind((HOST, number))
        except OSError as error:
            line.close()
            failure = error
            continue
        line.listen(128)
        return line
    why = "in use" if failure.errno == errno.EADDRINUSE else f"refused: {failure.strerror}"
    raise ShardmillError(f"port {port} is {why}: give another --port, or none for any free one")


def _make_server(app: Any, line: socket.socket) -> Any:
    from werkzeug.serving import WSGIRequestHandler, make_server  # noqa: PLC0415

    class QuietHandler(WSGIRequestHandler):
        """Logs no requests: their addresses hold the token."""

        protocol_version = "HTTP/1.1"

        def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
            pass

        def log_error(self, format: str, *args: object) -> None:  # noqa: A002 (its name there)
            pass

    host, port = line.getsockname()[:2]
    server: Any = make_server(
        host, port, app, threaded=True, request_handler=QuietHandler, fd=line.fileno()
    )
    line.close()  # the server has a descriptor of its own
    server.daemon_threads = True  # Ctrl-C does not wait for a picture
    server.block_on_close = False
    return server


def _advise(port: int, *, browser: bool) -> list[str]:
    lines = []
    if _is_far():
        user = os.environ.get("USER", "you")
        tunnel = f"ssh -N -L {port}:{HOST}:{port} {user}@{socket.gethostname()}"
        lines.append(f"from your own machine, first run: {tunnel}, then open that address there")
    elif browser and not _has_screen():
        lines.append("there is no screen for a browser here: open that address yourself")
    return [*lines, "Ctrl-C ends it; nothing is written, and only this machine is answered"]


def _is_far() -> bool:
    return bool(os.environ.get("SSH_CONNECTION"))


def _has_screen() -> bool:
    if _is_far() and not os.environ.get("DISPLAY"):
        return False
    # Without a screen, a browser of the terminal would take it over.
    return sys.platform != "linux" or any(
        os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY", "BROWSER")
    )
