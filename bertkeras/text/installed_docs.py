"""A corpus that is on every machine: the documentation of the installed Python packages."""

from __future__ import annotations

import ast
import hashlib
import importlib.metadata
import os
import sysconfig
import warnings
from collections.abc import Iterator, Sequence
from itertools import groupby
from pathlib import Path

from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from bertkeras.errors import BertKerasError
from bertkeras.text.prose import prose_of
from bertkeras.text.sentences import split_sentences

SKIPPED_FOLDERS = frozenset({"test", "tests", "idle_test", "site-packages", "dist-packages", "__pycache__"})
MIN_SENTENCES = 4


def iter_installed_docs(packages: Sequence[str] | None = None) -> Iterator[str]:
    """The docstrings of the standard library and of the packages that bertkeras stands on, as English prose.

    Source files are parsed, never imported or run. Each file gives one document: its docstrings in the order of the
    source, freed of examples, code, tables and markup, one paragraph per line (see `prose_of`). A paragraph that
    occurs again, in the same file or another, is taken once. Files that say less than four sentences are joined with
    the next of the same package. Tests are left out, and so is a file that this Python cannot parse. The order is that
    of the file names: the same versions give the same corpus, whatever else is installed.

    Args:
        packages: Top-level names to read instead, such as `["json", "numpy"]`. `None` means the standard library and
            what `bertkeras[tensorflow]` needs, and what that needs in turn: about 10 MB.

    Yields:
        Documents with a line break between paragraphs.

    Raises:
        BertKerasError: A package of that name is not installed, or has no documentation.

    Example:

    >>> document = next(iter_installed_docs(["textwrap"]))
    >>> document.splitlines()[0]
    'Text wrapping and filling.'
    """
    if isinstance(packages, str):
        raise BertKerasError(f"packages must be a list of names, got one str; pass [{packages!r}]")
    seen: set[bytes] = set()
    found = set()
    chosen = _standard_library() | _needed_packages() if packages is None else set(packages)
    for package, files in groupby(_source_files(chosen), key=lambda entry: entry[0]):
        for document in _documents(files, seen):
            found.add(package)
            yield document
    missing = [name for name in packages or () if name not in found]
    if missing:
        raise BertKerasError(f"no documentation found for {', '.join(missing)}; install it or check the name")


def _standard_library() -> set[str]:
    return {entry.name.removesuffix(".py") for entry in Path(sysconfig.get_paths()["stdlib"]).iterdir()}


def _needed_packages() -> set[str]:
    """Top-level names of `bertkeras[tensorflow]`'s dependencies, and of theirs, as far as they are installed."""
    distributions, waiting = set(), [("bertkeras", "tensorflow")]
    while waiting:
        name, extra = waiting.pop()
        try:
            requirements = [Requirement(line) for line in importlib.metadata.requires(name) or ()]
        except importlib.metadata.PackageNotFoundError:
            continue
        distributions.add(canonicalize_name(name))
        for requirement in requirements:
            needed = requirement.marker is None or requirement.marker.evaluate({"extra": extra})
            if needed and canonicalize_name(requirement.name) not in distributions:
                waiting.append((requirement.name, next(iter(requirement.extras), "")))
    owners = importlib.metadata.packages_distributions().items()
    distributions.discard("bertkeras")  # the corpus must not change with every edit of a docstring here
    return {package for package, names in owners if distributions & set(map(canonicalize_name, names))}


def _source_files(packages: set[str]) -> Iterator[tuple[str, Path]]:
    """Top-level name and path of every source file, the standard library first."""
    paths = sysconfig.get_paths()
    for root in dict.fromkeys(Path(paths[name]).resolve() for name in ("stdlib", "purelib", "platlib")):
        for entry in sorted(root.iterdir()) if root.is_dir() else ():
            package = entry.name.removesuffix(".py")
            if package not in packages:
                continue
            if entry.is_dir() and entry.name not in SKIPPED_FOLDERS:
                yield from ((package, path) for path in _files_beneath(entry))
            elif _is_source(entry.name):
                yield package, entry


def _files_beneath(folder: Path) -> Iterator[Path]:
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if name not in SKIPPED_FOLDERS)
        yield from (Path(parent, name) for name in sorted(names) if _is_source(name))


def _is_source(name: str) -> bool:
    return name.endswith(".py") and not name.startswith("test_") and not name.endswith("_test.py")


def _documents(files: Iterator[tuple[str, Path]], seen: set[bytes]) -> Iterator[str]:
    """The documents of one package."""
    paragraphs: list[str] = []
    for _, path in files:
        for docstring in _docstrings(path):
            paragraphs += [paragraph for paragraph in prose_of(docstring) if _is_new(paragraph, seen)]
        if _has_sentences(paragraphs, MIN_SENTENCES):
            yield "\n".join(paragraphs)
            paragraphs = []
    if _has_sentences(paragraphs, 2):
        yield "\n".join(paragraphs)


def _is_new(text: str, seen: set[bytes]) -> bool:
    digest = hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()
    if digest in seen:
        return False
    seen.add(digest)
    return True


def _has_sentences(paragraphs: list[str], count: int) -> bool:
    return len(paragraphs) >= count or len(split_sentences("\n".join(paragraphs))) >= count


def _docstrings(path: Path) -> Iterator[str]:
    try:
        source = path.read_bytes()
        if b'"""' not in source and b"'''" not in source:
            return
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of invalid escapes in other people's strings
            tree = ast.parse(source)
    except (OSError, SyntaxError, ValueError, RecursionError, MemoryError):
        return
    yield from _docstrings_in(tree)


def _docstrings_in(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        docstring = ast.get_docstring(node, clean=False)
        if docstring:
            yield docstring
    for name in ("body", "handlers", "orelse", "finalbody"):  # definitions lie in these alone
        children = getattr(node, name, None)
        if isinstance(children, list):
            for child in children:
                if not isinstance(child, ast.Expr | ast.Assign | ast.Return):
                    yield from _docstrings_in(child)
