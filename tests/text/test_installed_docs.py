import sys
import textwrap

import pytest

from bertkeras.errors import BertKerasError
from bertkeras.text import installed_docs
from bertkeras.text.installed_docs import iter_installed_docs
from bertkeras.text.prose import prose_of

LONG = "It says one thing here. It says another thing there. It says a third thing too. It says the last thing now."


@pytest.fixture
def install(tmp_path, monkeypatch):
    """A function that puts a source file into an installation with nothing else in it."""
    paths = {"stdlib": str(tmp_path / "std"), "purelib": str(tmp_path / "site"), "platlib": str(tmp_path / "site")}
    (tmp_path / "std").mkdir()
    monkeypatch.setattr(installed_docs.sysconfig, "get_paths", lambda: paths)
    monkeypatch.setattr(
        installed_docs, "_needed_packages", lambda: {path.stem for path in (tmp_path / "site").iterdir()}
    )

    def put(name, source):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(source if isinstance(source, bytes) else textwrap.dedent(source).encode())

    return put


def test_the_corpus_is_what_bertkeras_stands_on():
    needed = installed_docs._needed_packages()
    assert needed >= {"keras", "numpy", "tensorflow", "tensorflow_text", "tokenizers", "h5py", "rich"}
    assert not needed & {"bertkeras", "pytest", "transformers", "mypy", "jupyter_book"}  # of other extras
    assert installed_docs._standard_library() >= {"argparse", "asyncio", "json"}


def test_docstrings_come_in_the_order_of_the_source(install):
    install(
        "site/pack/a.py",
        '''
        """The module has a docstring here."""
        raise SystemExit("this must never run")
        class A:
            """The class has a docstring here."""
            x = """This string is not a docstring."""
            async def f(self):
                """The method has a docstring here."""
                if True:
                    def g():
                        """The inner function has one too."""
        try:
            pass
        except ValueError:
            def h():
                """The function in a handler has one."""
        ''',
    )
    assert list(iter_installed_docs()) == [
        "The module has a docstring here.\nThe class has a docstring here.\nThe method has a docstring here.\n"
        "The inner function has one too.\nThe function in a handler has one."
    ]
    assert "pack" not in sys.modules


def test_order_is_by_name_and_the_library_comes_first(install):
    for name in ("site/b/z.py", "site/b/a.py", "site/a.py", "std/z.py", "std/site-packages/q.py"):
        install(name, f'"""This is the file {name} speaking. {LONG}"""'.replace("/", " slash "))
    firsts = [document.split(" speaking")[0].split("file ")[1] for document in iter_installed_docs()]
    assert firsts == ["std slash z.py", "site slash a.py", "site slash b slash a.py", "site slash b slash z.py"]


def test_a_paragraph_is_taken_once(install):
    install("site/a.py", f'"""{LONG}\n\nOnly the first file says this."""')
    install("site/b.py", f'"""{LONG}\n\n{LONG.replace("It", "She")}"""')
    assert list(iter_installed_docs()) == [f"{LONG}\nOnly the first file says this.", LONG.replace("It", "She")]


def test_small_files_are_joined_within_their_package(install):
    install("site/a/a.py", '"""One sentence is in this file."""')
    install("site/a/b.py", '"""Another sentence is in that file."""')
    install("site/b.py", '"""A lonely sentence makes no document."""')
    install("site/c.py", f'"""{LONG}"""')
    assert list(iter_installed_docs()) == [
        "One sentence is in this file.\nAnother sentence is in that file.",
        LONG,
    ]


def test_tests_and_unreadable_files_are_left_out(install):
    install("site/a/good.py", f'"""{LONG}"""')
    for name in ("a/tests/x.py", "a/test/x.py", "a/test_x.py", "a/x_test.py", "a/data.txt"):
        install(f"site/{name}", f'"""{LONG} This is {name}."""')
    install("site/a/syntax.py", '"""This one has a bad end."""\ndef (:')
    install("site/a/null.py", b'"""This one has a null byte."""\0')
    install("site/a/encoding.py", '"""This one is in Latin, é."""'.encode("latin-1"))
    install("site/a/unknown.py", b'# coding: none-such\n"""This one is in an unknown coding."""')
    install("site/a/deep.py", '"""This one is nested too deep."""\nx = ' + "(" * 5000 + ")" * 5000)
    assert list(iter_installed_docs()) == [LONG]


def test_packages_restrict_it(install):
    install("site/a/b.py", f'"""{LONG}"""')
    install("site/c.py", f'"""{LONG.replace("It", "She")}"""')
    assert list(iter_installed_docs(["c"])) == [LONG.replace("It", "She")]
    with pytest.raises(BertKerasError, match="no documentation found for d, e;"):
        list(iter_installed_docs(["d", "c", "e"]))
    with pytest.raises(BertKerasError, match="must be a list"):
        list(iter_installed_docs("c"))


def test_this_installation_gives_english():
    documents = list(iter_installed_docs(["argparse", "json", "numpy"]))
    assert documents == list(iter_installed_docs(["argparse", "json", "numpy"]))
    text = "\n".join(documents)
    assert len(text) > 500_000
    assert ">>>" not in text
    lines = text.split("\n")
    assert len(lines) == len(set(lines))
    ends = sum(line.endswith((".", ":", ")", "!", "?", ",")) for line in lines)
    assert ends > 0.7 * len(lines)


PROSE = {
    "wrapped lines are joined": ("Joins two lines\nthat were wrapped.", ["Joins two lines that were wrapped."]),
    "indentation is cleaned": ("Joins two lines\n    that were wrapped.", ["Joins two lines that were wrapped."]),
    "doctests": ("Adds the two numbers.\n\n>>> add(1, 2)\n3 is the answer to this\n\nAnd that is all of it.",
                 ["Adds the two numbers.", "And that is all of it."]),
    "fences": ("Look at this example:\n```python\nthis is code not prose\n```\nAnd that is all of it.",
               ["Look at this example:", "And that is all of it."]),
    "double colon": ("It is used like this::\n\n    this is code not prose\n\nAnd that is all of it.",
                     ["It is used like this:", "And that is all of it."]),
    "code without marks": ("x = f(a, b) if c else d[e] + g", []),
    "headings": ("A short summary of it.\n\nThe Long Notes Heading\n----------------------\nText of the notes here.",
                 ["A short summary of it.", "Text of the notes here."]),
    "tables": ("Here is a table of words.\n\n==== ====\nmany words stand in here\n==== ====\n\n| so do they in here |",
               ["Here is a table of words."]),
    "directives": (".. note:: This is worth a note.\n\n.. math::\n    the sum of parts\n\n.. index:: this is an entry",
                   ["This is worth a note."]),
    "google arguments": ("Args:\n    first: The first of\n        the arguments.\n    other (int): The second of them.",
                         ["first: The first of the arguments.", "other (int): The second of them."]),
    "numpy arguments": ("Parameters\n----------\nx : array_like of any shape at all\n    The input of the function.\n",
                        ["The input of the function."]),
    "dedent": ("The first paragraph is deep.\n    It goes on deeper.\nThe second stands at the left.",
               ["The first paragraph is deep. It goes on deeper.", "The second stands at the left."]),
    "fields": (":param int x: The first of the arguments.\n:returns: The sum of the arguments.",
               ["The first of the arguments.", "The sum of the arguments."]),
    "lists": ("- the first of the items\n  goes on down here\n* the second of the items\n1. the third of the items",
              ["the first of the items goes on down here", "the second of the items", "the third of the items"]),
    "markup": ("Calls the :meth:`~a.B.run` of ``x`` with **great** *care* and `text <h://x>`_ as [told](x) [1]_.",
               ["Calls the a.B.run of x with great care and text as told ."]),
    "too short": ("Returns x.", []),
}  # fmt: skip


@pytest.mark.parametrize("name", PROSE)
def test_prose(name):
    docstring, paragraphs = PROSE[name]
    assert prose_of(docstring) == paragraphs
