"""Build the book with warnings as errors, then prove that all of it is there and that it needs no network."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

import yaml

BOOK = Path(__file__).resolve().parent
ROOT = BOOK.parent
HTML = BOOK / "_build" / "html"
LIVE = BOOK / "_static" / "live"  # the page that runs the course's BERT in the browser; made here, not committed

LOADING_LINKS = {"stylesheet", "icon", "preload", "modulepreload", "prefetch", "manifest", "preconnect", "dns-prefetch"}
LOADING_ATTRIBUTES = {"src", "srcset", "poster", "data", "background"}
REMOTE = re.compile(r"^\s*(?:[a-z][a-z0-9+.-]*:)?//", re.IGNORECASE)
CSS_ADDRESS = re.compile(r"""(?:url\(\s*|@import\s+)["']?([^"')\s;]+)""")
# An address that a script fetches as soon as it runs, or when its function is called.
SCRIPT_ADDRESS = re.compile(
    r"""(?:\.src\s*=|\bfrom|\bimport|\bimport\(|\bfetch\(|\bimportScripts\(|\.open\(["']GET["'],)\s*["'`]((?:https?:)?//[^"'`]+)"""
)


class References(HTMLParser):
    """What a browser loads with a page, and the text in it."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.text: list[str] = []
        self.has_math = False
        self._inside = ""

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        values = {name: value or "" for name, value in attributes}
        self._inside = tag
        self.has_math |= "math" in values.get("class", "").split()
        if tag == "link" and LOADING_LINKS & set(values.get("rel", "").lower().split()):
            self.loaded.append(values.get("href", ""))
        for name in LOADING_ATTRIBUTES & values.keys():
            parts = values[name].split(",") if name == "srcset" else [values[name]]
            self.loaded += [part.split()[0] for part in parts if part.strip()]
        self.loaded += CSS_ADDRESS.findall(values.get("style", ""))

    def handle_endtag(self, tag: str) -> None:
        self._inside = ""

    def handle_data(self, data: str) -> None:
        if self._inside == "style":
            self.loaded += CSS_ADDRESS.findall(data)
        elif self._inside == "script":
            self.loaded += SCRIPT_ADDRESS.findall(data)
        self.text.append(data)


def build() -> int:
    """Run Jupyter Book. It looks for the files under `book/book` unless every path is absolute."""
    run = "from jupyter_book.cli.main import main; main()"
    command = [sys.executable, "-c", run, "build", "-n", "-W", "--keep-going", "--all"]
    paths = ["--config", ROOT / "_config.yml", "--toc", BOOK / "_toc.yml", "--path-output", BOOK]
    return subprocess.run([*command, *map(str, paths), str(BOOK)], cwd=ROOT, check=False).returncode


def make_live_page() -> None:
    """Fine-tune the course's BERT on reviews, and export both for `live.md`, unless that was done of the same things.

    Where npm cannot fetch the runtime, the page keeps its picture.
    """
    made_of = [
        *sorted((ROOT / "bertkeras" / "export").rglob("*.*")),
        ROOT / "data" / "course-bert" / "model.safetensors",
    ]
    digest = hashlib.sha256(b"".join(path.read_bytes() for path in made_of if path.suffix != ".pyc")).hexdigest()
    stamp = LIVE / "made_of.txt"
    if stamp.is_file() and stamp.read_text() == digest:
        return
    shutil.rmtree(LIVE, ignore_errors=True)
    command = [sys.executable, "-m", "bertkeras"]
    environment = {**os.environ, "PYTHONPATH": os.fspath(ROOT)}
    with tempfile.TemporaryDirectory() as folder:
        reviews = [*command, "finetune", "--dataset", "english-reviews", "--model", "course-bert", "--epochs", "6"]
        subprocess.run([*reviews, "--output", f"{folder}/reviews"], check=True, env=environment)
        export = [*command, "export", "course-bert", os.fspath(LIVE), "--to", "browser", "--model", "BertMaskedLM"]
        if subprocess.run([*export, "--also", f"{folder}/reviews"], check=False, env=environment).returncode:
            print("book: live.html shows a picture in the place of the model, see above", file=sys.stderr)
            return
    stamp.write_text(digest)


def toc_pages() -> list[str]:
    toc = yaml.safe_load((BOOK / "_toc.yml").read_text(encoding="utf-8"))
    return [toc["root"], *(chapter["file"] for part in toc["parts"] for chapter in part["chapters"])]


def known_lines(page: str) -> list[str]:
    """The first line of every output that the tests compare: a fact that the page must show."""
    path = BOOK / f"{page}.ipynb"
    if not path.is_file():
        return []
    lines = []
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        if "nbval-check-output" in cell["metadata"].get("tags", []):
            texts = ["".join(output.get("text", "")).strip() for output in cell["outputs"]]
            lines += [text.splitlines()[0] for text in texts if text]
    return lines


def faults(html: Path = HTML) -> Iterator[str]:
    """One line for each thing that is wrong with the built book."""
    for page in toc_pages():
        path = html / f"{page}.html"
        if not path.is_file():
            yield f"{page} is in _toc.yml, but {path.name} was not built"
            continue
        text = re.sub(r"\s+", " ", "".join(_read(path).text))
        for line in known_lines(page):
            if re.sub(r"\s+", " ", unescape(line)) not in text:
                yield f"{path.name} does not show the output {line!r} of its notebook"
    for path in sorted(path for path in html.rglob("*.html") if "_static" not in path.parts):  # templates lie there
        page = _read(path)
        name = path.relative_to(html)
        for address in page.loaded:
            if REMOTE.match(address):
                yield f"{name} loads {address} from another host"
            elif not _exists(address, path, html) and (LIVE.is_dir() or "_static/live/" not in address):
                yield f"{name} loads {address}, which is not there"
        if page.has_math and not any("_static/mathjax/" in address for address in page.loaded):
            yield f"{name} has formulas, but no MathJax of its own"
    for path in sorted(html.rglob("*.css")):
        for address in CSS_ADDRESS.findall(path.read_text(encoding="utf-8", errors="replace")):
            if REMOTE.match(address):
                yield f"{path.relative_to(html)} loads {address} from another host"
    for path in sorted(html.rglob("*.js")):
        for address in SCRIPT_ADDRESS.findall(path.read_text(encoding="utf-8", errors="replace")):
            yield f"{path.relative_to(html)} loads {address} from another host"


def _read(path: Path) -> References:
    page = References()
    page.feed(path.read_text(encoding="utf-8"))
    return page


def _exists(address: str, page: Path, html: Path) -> bool:
    parts = urlsplit(address)
    if parts.scheme or not parts.path:
        return True  # data: and the like
    base = html if parts.path.startswith("/") else page.parent
    return (base / unquote(parts.path).lstrip("/")).exists()


def main() -> int:
    make_live_page()
    if code := build():
        print("book: Jupyter Book reported errors or warnings, see above", file=sys.stderr)
        return code
    found = list(faults())
    for fault in found:
        print(f"book: {fault}", file=sys.stderr)
    if found:
        return 1
    print(f"book: {len(toc_pages())} pages, nothing from another host, in {HTML.relative_to(ROOT)}/index.html")
    return 0


if __name__ == "__main__":
    sys.exit(main())
