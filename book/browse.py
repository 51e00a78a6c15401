"""Open every page of the built book in headless Chromium, at phone and desk width, light and dark, and find its faults.

python book/browse.py                    every page
python book/browse.py tour notation      some of them
python book/browse.py --screens FOLDER   also keep a picture of each page at each width and in each theme

A page is faulty when it asks another host for anything, writes an error to the console, leaves a formula unset, is
wider than the screen, or breaks a rule of axe-core (alt text, contrast, headings, names of links and buttons). Whatever
can be folded is opened first: solutions, quizzes and hidden cells are read too. It needs Chromium or Chrome on the
path, and `pip install "bertkeras[browser]"`.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import http.server
import shutil
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

BOOK = Path(__file__).resolve().parent
HTML = BOOK / "_build" / "html"

BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-component-update"]
WIDTHS = {"phone": (390, 844), "desk": (1280, 900)}
THEMES = ("light", "dark")

OPEN_ALL = """
document.head.insertAdjacentHTML(
    'beforeend', '<style>*, *::before { transition: none !important; animation: none !important }</style>');
document.querySelectorAll('details').forEach(details => details.open = true)
"""
MATH_IS_SET = "!window.MathJax || MathJax.startup?.promise?.then(() => true)"
UNSET_FORMULAS = """
[...document.querySelectorAll('.math')].filter(formula => !formula.querySelector('mjx-container'))
    .concat([...document.querySelectorAll('mjx-merror')]).map(formula => formula.textContent.trim().slice(0, 60))
"""
TOO_WIDE = """
document.documentElement.scrollWidth <= innerWidth ? [] : [...document.body.querySelectorAll('*')]
    .filter(element => element.getBoundingClientRect().right > innerWidth + 1)
    .map(element => `${element.tagName.toLowerCase()}.${element.className}`.slice(0, 60))
"""
# What WCAG 2 asks for at levels A and AA, and the order of headings.
AXE = """
axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa'], rules: {
    'heading-order': {enabled: true}, 'page-has-heading-one': {enabled: true}, 'empty-heading': {enabled: true}}})
"""


def chromium() -> str:
    """The browser's path."""
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    if found is None:
        sys.exit(f"browse: no browser found; install one of {', '.join(BROWSERS)}")
    return found


@contextlib.contextmanager
def served(folder: Path) -> Iterator[str]:
    """The address under which a folder is served to this machine alone."""

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()


def faults(context: Any, address: str, name: str, axe: str, picture: Path | None) -> Iterator[str]:
    """One line for each thing that is wrong with a page."""
    page = context.new_page()
    found: list[str] = []
    page.on("console", lambda message: message.type == "error" and found.append(f"console: {message.text}"))
    page.on("pageerror", lambda error: found.append(f"script: {error}"))

    def only_here(route: Any) -> None:
        if route.request.url.startswith((address, "data:", "blob:")):
            route.continue_()
        else:
            found.append(f"asks another host: {route.request.url}")
            route.abort()

    page.route("**/*", only_here)
    page.goto(f"{address}/{name}.html", wait_until="networkidle")
    page.evaluate(MATH_IS_SET)
    page.evaluate(OPEN_ALL)
    yield from found
    yield from (f"formula not set: {formula}" for formula in page.evaluate(UNSET_FORMULAS))
    if wide := page.evaluate(TOO_WIDE):
        yield f"wider than the screen: {', '.join(sorted(set(wide))[:5])}"
    page.evaluate(axe)
    for violation in page.evaluate(AXE)["violations"]:
        first, *more = violation["nodes"]
        reason = first["any"][0]["message"] if first["any"] else violation["help"]
        yield f"{violation['id']} ({1 + len(more)}): {first['html'][:120]}; {reason}"
    if picture:
        page.screenshot(path=picture, full_page=True)
    page.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", metavar="page", help="names without .html; all when there is none")
    parser.add_argument("--screens", type=Path, metavar="FOLDER", help="where to keep the pictures")
    arguments = parser.parse_args()
    try:
        import axe_playwright_python
        from playwright.sync_api import sync_playwright
    except ImportError as error:
        sys.exit(f'browse: {error.name} is not installed: pip install "bertkeras[browser]"')
    if not (HTML / "index.html").is_file():
        sys.exit("browse: the book is not built; run `make book`")
    axe = Path(axe_playwright_python.__file__).with_name("axe.min.js").read_text(encoding="utf-8")
    names = arguments.names or sorted(path.stem for path in HTML.glob("*.html"))
    if arguments.screens:
        arguments.screens.mkdir(parents=True, exist_ok=True)
    failed = 0
    with served(HTML) as address, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium(), args=FLAGS)
        for width, (across, down) in WIDTHS.items():
            for theme in THEMES:
                context = browser.new_context(viewport={"width": across, "height": down}, color_scheme=theme)
                context.set_default_timeout(120_000)  # milliseconds; a picture of a long page takes its time
                for name in names:
                    picture = arguments.screens and arguments.screens / f"{name}-{width}-{theme}.png"
                    for fault in faults(context, address, name, axe, picture):
                        print(f"browse: {name}, {width}, {theme}: {fault}", file=sys.stderr)
                        failed += 1
                context.close()
        browser.close()
    if not failed:
        print(f"browse: {len(names)} pages at {len(WIDTHS)} widths, light and dark, without a fault")
    return int(failed > 0)


if __name__ == "__main__":
    sys.exit(main())
