"""The gate after the build notices what it is there to notice."""

import importlib.util
from html import escape

import pytest

pytest.importorskip("yaml")

from tests.book.notebooks import BOOK, pages


@pytest.fixture
def build():
    spec = importlib.util.spec_from_file_location("book_build", BOOK / "build.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def site(tmp_path, build):
    """A built book in small: every page, with the lines that it must show."""
    (tmp_path / "_static" / "mathjax").mkdir(parents=True)
    (tmp_path / "_static" / "mathjax" / "tex-chtml.js").write_text("")
    for page in pages():
        lines = "".join(f"<pre>{escape(line)}</pre>" for line in build.known_lines(page))
        (tmp_path / f"{page}.html").write_text(f"<html><body>{lines}</body></html>", encoding="utf-8")
    return tmp_path


def test_a_whole_site_has_no_faults(build, site):
    assert list(build.faults(site)) == []


def test_there_are_lines_to_look_for(build):
    assert sum(len(build.known_lines(page)) for page in pages()) >= 10


def test_a_missing_page(build, site):
    (site / "tour.html").unlink()
    assert any("tour.html was not built" in fault for fault in build.faults(site))


def test_a_page_without_its_outputs(build, site):
    (site / "tour.html").write_text("<html></html>")
    assert any("does not show the output" in fault for fault in build.faults(site))


@pytest.mark.parametrize(
    "html",
    [
        '<script src="https://cdn.example/mathjax.js"></script>',
        '<script src="//cdn.example/a.js"></script>',
        '<link rel="stylesheet" href="https://fonts.example/css">',
        '<img src="https://example.org/logo.png">',
        '<img srcset="https://example.org/a.png 2x">',
        '<iframe src="https://example.org"></iframe>',
        "<style>@import 'https://fonts.example/css';</style>",
        "<style>a { background: url(https://example.org/a.png) }</style>",
        '<p style="background: url(//example.org/a.png)">x</p>',
        "<script>let s = document.createElement('script'); s.src = 'https://cdn.example/a.js'</script>",
    ],
)
def test_another_host(build, site, html):
    page = site / "notation.html"
    page.write_text(page.read_text() + html)
    assert any("from another host" in fault for fault in build.faults(site))


@pytest.mark.parametrize("html", ['<a href="https://arxiv.org">paper</a>', '<link rel="canonical" href="https://x.y">'])
def test_a_link_loads_nothing(build, site, html):
    page = site / "notation.html"
    page.write_text(page.read_text() + html)
    assert list(build.faults(site)) == []


def test_a_style_sheet_that_loads_a_font(build, site):
    (site / "_static" / "a.css").write_text("@font-face { src: url('https://fonts.example/a.woff2') }")
    assert any("a.css loads https://fonts.example" in fault for fault in build.faults(site))


def test_a_file_that_is_not_there(build, site):
    page = site / "notation.html"
    page.write_text(page.read_text() + '<img src="_images/none.png">')
    assert any("_images/none.png, which is not there" in fault for fault in build.faults(site))


def test_formulas_need_a_mathjax_of_their_own(build, site):
    page = site / "notation.html"
    page.write_text(page.read_text() + '<span class="math notranslate">\\(x\\)</span>')
    assert any("no MathJax of its own" in fault for fault in build.faults(site))
    page.write_text(page.read_text() + '<script src="_static/mathjax/tex-chtml.js"></script>')
    assert list(build.faults(site)) == []
