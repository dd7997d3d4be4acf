"""The addresses that are answered: records by number, our own files by name, nothing by path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from flask import Flask, Response, abort, redirect, render_template, request

from converter.errors import ShardmillError
from converter.sizes import format_bytes
from pipelines.pages.texts import name_class
from pipelines.pages.thumbnails import Picture
from pipelines.view import markup, screens
from pipelines.view.albums import Album, DataSet, describe_fault
from pipelines.view.guards import guard
from pipelines.view.listings import Filter
from pipelines.view.screens import View

MAX_CHOICES: Final = 100  # classes in a list; of more, one is typed

_FOLDER: Final = Path(__file__).parent
_STATIC: Final = {
    "theme.css": (_FOLDER.parent / "pages" / "theme.css", "text/css"),
    "view.css": (_FOLDER / "static" / "view.css", "text/css"),
    "icon.svg": (_FOLDER / "static" / "icon.svg", "image/svg+xml"),
    "view.js": (_FOLDER / "static" / "view.js", "text/javascript"),
}


def make_app(data: DataSet, token: str) -> Flask:
    """Makes the app that shows one data set to those who know the token."""
    app = Flask("pipelines.view", static_folder=None, template_folder=str(_FOLDER / "templates"))
    app.jinja_env.finalize = markup.clean
    app.jinja_env.trim_blocks = app.jinja_env.lstrip_blocks = True
    app.jinja_env.globals.update(
        data=data, name_class=name_class, format_bytes=format_bytes, paint=markup.paint,
        break_name=markup.break_name, page_records=screens.PAGE_RECORDS, max_choices=MAX_CHOICES,
    )  # fmt: skip
    guard(app, token)
    _add_pages(app, data)
    _add_pictures(app, data)

    answer = app.wsgi_app

    def answer_first(*request_of: Any) -> Any:
        with data.traffic:
            return answer(*request_of)

    app.wsgi_app = answer_first  # type: ignore[assignment, method-assign]  # as Flask's docs wrap it

    @app.errorhandler(404)
    def say_missing(_: Exception) -> tuple[str, int]:
        return render_template("message.html", view=None, title="There is no such page"), 404

    return app


def _add_pages(app: Flask, data: DataSet) -> None:
    @app.get("/")
    def show_first() -> Any:
        return redirect(f"/s/{next(iter(data.albums))}/")

    @app.get("/s/<split>/")
    def show_split(split: str) -> Any:
        return screens.show_page(View.of_request(data, split))

    @app.get("/s/<split>/classes")
    def show_classes(split: str) -> str:
        return screens.list_classes(View.of_request(data, split))

    @app.get("/s/<split>/choose")
    def choose(split: str) -> Any:
        view = View.of_request(data, split)
        text = request.args.get("name", "")
        label = data.find_class(text)
        if label is None and text.strip():
            return redirect(f"/s/{split}/classes?{urlencode({'q': text})}")
        return redirect(View(view.album, Filter(label, view.wanted.text)).address())

    @app.get("/s/<split>/jump")
    def jump(split: str) -> Any:
        return redirect(
            screens.find_target(View.of_request(data, split), request.args.get("to", ""))
        )

    @app.get("/s/<split>/progress")
    def tell_progress(split: str) -> dict[str, Any]:
        view = View.of_request(data, split)
        listing = view.album.listing
        found = len(listing.find(view.wanted)) if view.wanted else 0
        return {**listing.progress._asdict(), "found": found}

    @app.get("/s/<split>/<number>")
    def show_one(split: str, number: str) -> str:
        view = View.of_request(data, split)
        return screens.show_record(view, _check_number(view.album, number))

    @app.get("/static/<name>")
    def send_static(name: str) -> Response:
        path, media_type = _STATIC.get(name) or abort(404)
        return Response(path.read_bytes(), mimetype=media_type)


def _add_pictures(app: Flask, data: DataSet) -> None:
    @app.get("/s/<split>/<number>/<kind>")
    def send_picture(split: str, number: str, kind: str) -> Response:
        album = screens.find_album(data, split)
        row = _check_number(album, number)
        ways: dict[str, Callable[[int], Picture]] = {
            "thumbnail": album.draw_thumbnail,
            "image": album.draw,
            "mask": album.draw_mask,
        }
        draw = ways.get(kind) or abort(404)
        try:
            picture = draw(row)
        except (ShardmillError, OSError) as error:
            reason = "" if kind == "thumbnail" else describe_fault(error)
            picture = markup.draw_fault(album.find_place(row), reason)
        return Response(picture.data, mimetype=picture.media_type)


def _check_number(album: Album, text: str) -> int:
    number = screens.read_number(text, len(album))
    return abort(404) if number is None else number
