"""A real browser for the tests, and screenshots by hand: `python tests/support/browsing.py PAGE FOLDER`."""

from __future__ import annotations

import shutil
import sys
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path


WIDTHS = {"phone": 360, "tablet": 820, "desk": 1440}
SCHEMES = ("light", "dark")
RULES = {"runOnly": ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "best-practice"]}
"""Of the check of accessibility."""
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


def missing() -> str | None:
    """Return what is missing for a real browser, and how to get it; None where all is there."""
    try:
        import axe_playwright_python  # noqa: F401
        import gradio  # noqa: F401
        import playwright  # noqa: F401
    except ImportError:
        return "no driver of browsers: pip install 'hf-midrange[browser]'"
    return None if _binary() else "no browser: apt-get install --no-install-recommends chromium"


def _binary() -> str | None:
    return next((found for name in BROWSERS if (found := shutil.which(name))), None)


@dataclass
class Seen:
    """An open page and everything it did."""

    page: object
    console: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)

    def strays(self, url: str) -> list[str]:
        """Return the requests to anywhere but `url`."""
        return [each for each in self.requests if not each.startswith((url, "data:", "blob:"))]


@contextmanager
def browser():
    """Yield a headless browser."""
    from playwright.sync_api import sync_playwright

    with sync_playwright() as driver:
        # The sandbox of the browser cannot be set up as root, which containers are.
        started = driver.chromium.launch(executable_path=_binary(), args=["--no-sandbox"])
        try:
            yield started
        finally:
            started.close()


@contextmanager
def opened(started, file: Path, width: int = 1440, scheme: str = "light"):
    """Yield the file, opened from disk, with its console messages, errors and requests."""
    with visited(started, file.resolve().as_uri(), width, scheme) as seen:
        yield seen


@contextmanager
def visited(started, url: str, width: int = 1440, scheme: str = "light"):
    """Yield the page at an address, with its console messages, errors and requests."""
    page = started.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
    seen = Seen(page)
    page.on("console", lambda message: seen.console.append(f"{message.type}: {message.text}"))
    page.on("pageerror", lambda error: seen.console.append(f"error: {error}"))
    page.on("request", lambda request: seen.requests.append(request.url))
    page.goto(url)
    try:
        yield seen
    finally:
        page.close()


def screenshots(file: Path, folder: Path) -> None:
    """Write the whole page at every width in every scheme, and as it is printed."""
    folder.mkdir(parents=True, exist_ok=True)
    with browser() as started:
        for name, width in WIDTHS.items():
            for scheme in SCHEMES:
                with opened(started, file, width, scheme) as seen:
                    seen.page.screenshot(path=folder / f"{name}_{scheme}.png", full_page=True)
        with opened(started, file) as seen:
            seen.page.pdf(path=folder / "printed.pdf", format="A4")


if __name__ == "__main__":
    screenshots(Path(sys.argv[1]), Path(sys.argv[2]))
