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
    """Starts Chromium; skips the test where it is missing."""
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("Chromium is missing: install Debian's package chromium")
    from playwright.sync_api import sync_playwright

    flags = [*_FLAGS, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        process = playwright.chromium.launch(executable_path=chromium, args=flags)
        try:
            yield Browser(
                process.new_context(
                    viewport={"width": width, "height": height},
                    color_scheme="dark" if dark else "light",
                )
            )
        finally:
            process.close()
