"""A real browser for the tests of pages: headless Chromium, which says what went wrong in it.

with open_browser(width=380, dark=True) as browser:
    page = browser.open(url)
    assert browser.complaints == []
    assert browser.requests == [url]
"""

import contextlib
import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

# Without these, Chromium asks its maker for updates, which looks like a page that leaks.
_FLAGS = (
    "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--force-color-profile=srgb",
)  # fmt: skip


class Browser:
    """A window, and what happened in it."""

    def __init__(self, context: Any) -> None:
        self._context = context
        self.complaints: list[str] = []  # messages of the console, errors, dialogs
        self.requests: list[str] = []  # addresses, also of what was refused

    def open(self, url: str) -> Any:
        """Opens a page in a new tab; returns Playwright's `Page`."""
        page = self._context.new_page()
        page.on("console", lambda message: self.complaints.append(message.text))
        page.on("pageerror", lambda error: self.complaints.append(str(error)))
        page.on("dialog", self._refuse)
        page.on("request", lambda request: self.requests.append(request.url))
        page.goto(url)
        return page

    def _refuse(self, dialog: Any) -> None:
        self.complaints.append(f"dialog: {dialog.message}")
        dialog.dismiss()


@contextlib.contextmanager
def open_browser(*, width: int = 1400, height: int = 900, dark: bool = False) -> Iterator[Browser]:
    """Opens a window, in a Chromium of its own unless the test uses the fixture `chromium`."""
    with _start_chromium() as chromium:
        context = chromium.new_context(
            viewport={"width": width, "height": height},
            color_scheme="dark" if dark else "light",
        )
        try:
            yield Browser(context)
        finally:
            context.close()


@pytest.fixture(scope="module")
def chromium() -> Iterator[None]:
    """One Chromium for the tests of a module: to start one takes a second of two cores."""
    # Of a module and no longer: as long as it runs, this thread has an event loop, and
    # `asyncio.run` refuses to start another.
    with _start_chromium() as running, pytest.MonkeyPatch.context() as patch:
        patch.setitem(globals(), "_start_chromium", lambda: contextlib.nullcontext(running))
        yield


@contextlib.contextmanager
def _start_chromium() -> Iterator[Any]:
    """Starts Chromium; skips the test where it is missing."""
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("Chromium is missing: install Debian's package chromium")
    from playwright.sync_api import sync_playwright

    flags = [*_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        running = playwright.chromium.launch(executable_path=path, args=flags)
        try:
            yield running
        finally:
            running.close()
