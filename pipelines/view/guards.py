"""Who may ask: what a page on this machine needs so that nothing else on it or beyond can read it.

A program of another user can reach a loopback address, so there is a token; a page in the browser
can, too, by a name that leads to 127.0.0.1, so the name asked for has to be one of this machine.
"""

import secrets
from typing import Final

from flask import Flask, Request, Response, request

HOSTS: Final = frozenset({"127.0.0.1", "localhost", "[::1]"})
METHODS: Final = frozenset({"GET", "HEAD"})
TOKEN: Final = "token"  # noqa: S105 (the name of an argument)
MAX_ADDRESS: Final = 4_096  # characters

_HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; img-src 'self'; style-src 'self'; "
    "script-src 'self'; connect-src 'self'; form-action 'self'; base-uri 'none'; "
    "frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    # Another data set may be shown at the same address tomorrow.
    "Cache-Control": "no-store",
}

# The cookie goes only with requests that this page makes itself. After a click elsewhere, in a
# terminal in the browser say, a redirect would still count as made elsewhere: hence a page.
_ENTRANCE: Final = (
    '<!doctype html><html lang="en"><meta charset="utf-8"><title>shardmill view</title>'
    '<link rel="icon" href="/static/icon.svg">'
    '<meta http-equiv="refresh" content="0;url=/"><p><a href="/">Show the data set</a></p></html>'
)


def make_token() -> str:
    """A token that cannot be guessed, for an address."""
    return secrets.token_urlsafe(24)


def guard(app: Flask, token: str) -> None:
    """Lets an app answer only those who know the token, and only on this machine's own names."""

    @app.before_request
    def check() -> Response | None:
        if _read_host(request) not in HOSTS:
            return _refuse(403, "this page answers only as 127.0.0.1, localhost or [::1]")
        if request.method not in METHODS:
            return _refuse(405, "nothing can be written here")
        if len(request.url) > MAX_ADDRESS:
            return _refuse(414, "this address is too long")
        if (given := request.args.get(TOKEN)) is not None and _is_same(given, token):
            return _enter(token)
        if not _is_same(request.cookies.get(_name_cookie(request), ""), token):
            return _refuse(403, "open the whole address that shardmill view printed: its token "
                           "is missing here, or of an earlier run")  # fmt: skip
        return None

    @app.after_request
    def add_headers(response: Response) -> Response:
        response.headers.update(_HEADERS)
        return response


def _is_same(given: str, token: str) -> bool:
    # In a time that does not tell how much of it is right.
    return secrets.compare_digest(given.encode("utf-8", "replace"), token.encode())


def _read_host(asked: Request) -> str:
    host, colon, port = asked.host.rpartition(":")
    return host.lower() if colon and port.isdecimal() else asked.host.lower()


def _name_cookie(asked: Request) -> str:
    # A browser sends a host's cookies to all of its ports.
    return f"shardmill-{asked.host.rpartition(':')[2]}"


def _enter(token: str) -> Response:
    response = Response(_ENTRANCE, mimetype="text/html")
    response.set_cookie(_name_cookie(request), token, httponly=True, samesite="Strict")
    return response


def _refuse(status: int, why: str) -> Response:
    return Response(f"shardmill view: {why}\n", status, mimetype="text/plain")
