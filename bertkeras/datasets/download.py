"""The files of data sets: where they are looked for, and how they are fetched and checked."""

from __future__ import annotations

import functools
import gzip
import hashlib
import http.client
import itertools
import json
import logging
import os
import posixpath
import tarfile
import tempfile
import urllib.error
import urllib.request
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from bertkeras.errors import BertKerasError, first_line
from bertkeras.files import atomic_path

HOME, CACHE, OFFLINE = "BERTKERAS_DATA_HOME", "BERTKERAS_CACHE", "BERTKERAS_OFFLINE"
SCHEME = "https://"
LARGEST = 1 << 30  # bytes of what has no known size
CHUNK = 1 << 16
TIMEOUT = 60  # seconds without an answer

logger = logging.getLogger("bertkeras")


@dataclass(frozen=True)
class Source:
    """An address that gives a file, or an archive with the file in it.

    Args:
        url: The address.
        member: The file's name in the archive; with a `/` at its end a folder, see `DataFile.make`.
        bytes: Size of the archive, if known.
        sha256: Of the archive, if known.
    """

    url: str
    member: str = ""
    bytes: int | None = None
    sha256: str | None = None

    @property
    def compression(self) -> str:
        """`zip` or `tar` for an archive, else nothing."""
        return "" if not self.member else "zip" if self.url.endswith(".zip") else "tar"

    def __str__(self) -> str:
        return f"{self.member} in {self.url}" if self.member else self.url


@dataclass(frozen=True)
class DataFile:
    """A file of a data set.

    Args:
        path: Where it lies beneath the data home, unpacked; packed it has `.gz` behind.
        split: What it belongs to; empty if it is the whole from which parts are taken.
        is_extra: Whether it describes the data and holds none.
        rows: How many examples it has, if known.
        bytes: Its size unpacked, if known.
        sha256: Of it unpacked, if known.
        sources: Where it is published.
        make: How it is made of a folder in the archive; empty if it is a member itself.
    """

    path: str
    split: str = ""
    is_extra: bool = False
    rows: int | None = None
    bytes: int | None = None
    sha256: str | None = None
    sources: tuple[Source, ...] = ()
    make: str = ""


def cache_folder() -> Path:
    """Where downloads are kept: `BERTKERAS_CACHE`, else `~/.cache/bertkeras`."""
    return Path(os.environ.get(CACHE) or "~/.cache/bertkeras").expanduser()


def places() -> list[Path]:
    """The folders in which files are looked for: `BERTKERAS_DATA_HOME`, then the cache."""
    home = os.environ.get(HOME)
    return [*([Path(home).expanduser()] if home else []), cache_folder()]


def find(file: DataFile) -> Path | None:
    """The file, packed or unpacked, if it is here.

    Raises:
        BertKerasError: Another file lies in its place, by its SHA-256.
    """
    for place in places():
        for path in (place / file.path, place / f"{file.path}.gz"):
            if path.is_file():
                _check(path, file)
                return path
    return None


def fetch(file: DataFile, files: Sequence[DataFile], unchecked: bool = False) -> Path:
    """Fetch a file into the cache.

    Args:
        file: The file.
        files: Those of its data set: what is in the same archive is fetched with it.
        unchecked: Whether to take a file whose SHA-256 is not known.

    Raises:
        BertKerasError: It cannot be had, and why, in words that can stand in the middle of a sentence.
    """
    if os.environ.get(OFFLINE, "0") not in ("", "0"):
        raise BertKerasError(f"{OFFLINE} is set, so {file.sources[0]} is not fetched")
    failures = []
    for source in file.sources:
        if not (unchecked or file.sha256 or source.sha256):
            failures.append(f"what {source.url} gives cannot be checked, pass unchecked=True to take it as it is")
            continue
        try:
            target = cache_folder() / file.path
            if source.member:
                _unpack(source, [(other, own) for other in files for own in other.sources if own.url == source.url])
            else:
                _write(target, _download(source.url, file.bytes), file.bytes, file.sha256, source.url)
            return target
        except _DownloadError as error:
            failures.append(str(error))
    raise BertKerasError("; ".join(failures))


class _DownloadError(BertKerasError):
    """An address does not give what it should; another one may."""


def _unpack(source: Source, members: Sequence[tuple[DataFile, Source]]) -> None:
    folder = cache_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        temporary = tempfile.TemporaryDirectory(dir=folder, prefix=".")
    except OSError as error:
        raise BertKerasError(f"cannot write {folder}: {error.strerror}") from error
    with temporary:
        archive = Path(temporary.name) / posixpath.basename(source.url)
        _write(archive, _download(source.url, source.bytes), source.bytes, source.sha256, source.url)
        for file, own in members:
            _write(folder / file.path, _unpacked(archive, own, file.make), file.bytes, file.sha256, str(own))


def _unpacked(archive: Path, source: Source, make: str) -> Iterator[bytes]:
    member = source.member
    try:
        if source.compression == "zip":
            with zipfile.ZipFile(archive) as packed:
                if make:
                    yield from MAKERS[make](packed, member)
                else:
                    with packed.open(member) as file:
                        yield from _chunks(file)
        else:
            with tarfile.open(archive) as packed_tar:
                extracted = packed_tar.extractfile(member)
                if extracted is None:
                    raise KeyError
                yield from _chunks(extracted)
    except KeyError as error:
        raise _DownloadError(f"{archive.name} has no {member}") from error
    except (zipfile.BadZipFile, tarfile.TarError, EOFError, zlib.error, OSError, RuntimeError, ValueError) as error:
        raise _DownloadError(f"{archive.name} is damaged: {first_line(error)}") from error


def _reviews(archive: zipfile.ZipFile, folder: str) -> Iterator[bytes]:
    """A JSON line for each review; the files are `neg/cv000_29416.txt` and so on, the fold is the first digit."""
    for path in sorted(path for path in archive.namelist() if path.startswith(folder) and path.endswith(".txt")):
        label, name = path.removeprefix(folder).removesuffix(".txt").split("/")
        record = {"id": name, "label": label, "fold": int(name[2]), "text": archive.read(path).decode("utf-8")}
        yield json.dumps(record).encode() + b"\n"


MAKERS: dict[str, Callable[[zipfile.ZipFile, str], Iterator[bytes]]] = {"movie-reviews": _reviews}


class _StaysSafe(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, req, fp, code, msg, headers, newurl):  # type: ignore[no-untyped-def]
        _check_scheme(newurl)
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def _check_scheme(url: str) -> None:
    if not url.startswith(SCHEME):
        raise _DownloadError(f"{url} does not begin with {SCHEME}")


def _download(url: str, size: int | None) -> Iterator[bytes]:
    _check_scheme(url)
    logger.info("fetching %s", url)
    opener = urllib.request.build_opener(_StaysSafe)
    opener.addheaders = [("User-Agent", "bertkeras")]
    found = 0
    try:
        with opener.open(url, timeout=TIMEOUT) as response:
            length = response.headers.get("Content-Length")
            for chunk in _chunks(response):
                found += len(chunk)
                yield chunk
    except urllib.error.HTTPError as error:
        raise _DownloadError(f"{url} answers {error.code} {' '.join(str(error.reason).split())}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        raise _DownloadError(f"{url} cannot be reached: {' '.join(str(reason).split())}") from error
    if length is not None and found != int(length):
        raise _DownloadError(f"{url} broke off after {found:,} of {int(length):,} bytes")


def _chunks(file: IO[bytes]) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk


def _write(target: Path, chunks: Iterator[bytes], size: int | None, sha256: str | None, what: str) -> None:
    """Write a file whole and right, or not at all."""
    limit = LARGEST if size is None else size
    digest, found = hashlib.sha256(), 0
    first = next(chunks, b"")  # what cannot be had fails here, before there is a folder for it
    with atomic_path(target) as temporary:
        with open(temporary, "wb") as out:
            for chunk in itertools.chain([first], chunks):
                found += len(chunk)
                if found > limit:
                    raise _DownloadError(f"{what} is larger than the {limit:,} bytes that it should have at most")
                digest.update(chunk)
                out.write(chunk)
        if size is not None and found != size:
            raise _DownloadError(f"{what} has {found:,} bytes, not {size:,}")
        if sha256 is not None and digest.hexdigest() != sha256:
            raise _DownloadError(f"{what} has the SHA-256 {digest.hexdigest()}, not {sha256}, and was not kept")
    if sha256 is None:
        logger.info("%s has the SHA-256 %s", what, digest.hexdigest())


def _check(path: Path, file: DataFile) -> None:
    if file.sha256 is None:
        return
    try:
        status = path.stat()
        found = _sha256(path, status.st_size, status.st_mtime_ns)
    except (OSError, EOFError, zlib.error) as error:
        raise BertKerasError(f"{path} cannot be read: {error}") from error
    if found != file.sha256:
        raise BertKerasError(f"{path} is another file: its SHA-256 is {found}, not {file.sha256}; replace or remove it")


@functools.cache
def _sha256(path: Path, size: int, changed: int) -> str:
    """Of what is in a file, unpacked; once for a file of that size and time."""
    with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()  # type: ignore[arg-type]
