"""Files that are looked for, fetched from a server on this machine, and checked."""

import gzip
import hashlib
import http.server
import io
import json
import os
import tarfile
import threading
import zipfile
from types import SimpleNamespace

import pytest

from bertkeras.datasets import TextExample, download, load, locate, registry
from bertkeras.errors import BertKerasError

DATA = "text\tlabel\n好\tgood\n坏\tbad\n".encode()
EXAMPLES = [TextExample("好", label="good"), TextExample("坏", label="bad")]


def sha256(data):
    return hashlib.sha256(data).hexdigest()


def zipped(members):
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members.items():
            archive.writestr(name, data)
    return file.getvalue()


def tarred(members):
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w:gz") as archive:
        for name, data in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(data)
            archive.addfile(member, io.BytesIO(data))
    return file.getvalue()


class Handler(http.server.BaseHTTPRequestHandler):
    """Gives what the test has put under a path: bytes, a status, or a function that answers."""

    def do_GET(self):
        self.server.asked.append(self.path)
        answer = self.server.answers.get(self.path, 404)
        if callable(answer):
            return answer(self)
        if isinstance(answer, int):
            return self.send_error(answer)
        self.send_response(200)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_):
        pass


@pytest.fixture
def server(monkeypatch):
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.asked, server.answers = [], {}
    server.address = f"http://127.0.0.1:{server.server_port}/"
    monkeypatch.setattr(download, "SCHEME", "http://127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def tiny(tmp_path, monkeypatch, server):
    """A data set `tiny` whose only file the server may give."""
    monkeypatch.setenv("BERTKERAS_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("BERTKERAS_OFFLINE", "0")
    monkeypatch.delenv("BERTKERAS_DATA_HOME", raising=False)
    tiny = SimpleNamespace(path=tmp_path / "cache" / "tiny" / "a.tsv", cache=tmp_path / "cache")

    def know(files=None, archives=None, **entry):
        entry = {"split": "train", "file": "a.tsv", "from": server.address, **entry}
        table = {"read": {"classification": {"format": "tsv"}}, "files": [*(files or []), entry]}
        table |= dict.fromkeys(["title", "licence", "citation", "page", "language"], "known")
        known = {"tiny": registry._entry("tiny", table, archives or {})}
        monkeypatch.setattr(registry, "_registry", lambda: known)

    def fails(said, **options):
        with pytest.raises(BertKerasError, match=said) as caught:
            load("tiny", **options)
        message = str(caught.value)
        assert message.startswith(f"tiny is not here (no {tiny.path}; BERTKERAS_DATA_HOME is not set): ")
        assert message.endswith(f"; the set is at known; put the file at {tiny.path}")
        assert "\n" not in message
        left = [path for path in tiny.cache.rglob("*") if path.is_file()] if tiny.cache.exists() else []
        assert left == [], "nothing is kept"

    tiny.know, tiny.fails = know, fails
    know(sha256=sha256(DATA), bytes=len(DATA))
    return tiny


def test_fetched_once(tiny, server):
    server.answers["/a.tsv"] = DATA
    assert load("tiny") == load("tiny") == EXAMPLES
    assert locate("tiny") == tiny.path
    assert tiny.path.read_bytes() == DATA
    assert server.asked == ["/a.tsv"]


def test_another_content(tiny, server):
    server.answers["/a.tsv"] = DATA[:-1] + b"!"
    tiny.fails(f"a.tsv has the SHA-256 [0-9a-f]{{64}}, not {sha256(DATA)}, and was not kept")


def cut(handler, said, data):
    handler.send_response(200)
    if said is not None:
        handler.send_header("Content-Length", str(said))
    handler.end_headers()
    handler.wfile.write(data)


@pytest.mark.parametrize(
    ("answer", "said"),
    [
        (404, "/a.tsv answers 404 Not Found"),
        (500, "answers 500 Internal Server Error"),
        (b"", "has 0 bytes, not 28"),
        (DATA[:-1], "has 27 bytes, not 28"),
        (DATA + b"!", "larger than the 28 bytes"),
        (lambda handler: cut(handler, 28, DATA[:10]), "broke off after 10 of 28 bytes"),
        (lambda handler: cut(handler, None, DATA[:10]), "has 10 bytes, not 28"),
        (lambda handler: cut(handler, None, b"x" * 1_000_000), "larger than the 28 bytes"),
        (lambda handler: handler.wfile.write(b"no HTTP\r\n\r\n"), "cannot be reached: "),
        (lambda handler: None, "cannot be reached: "),
    ],
)
def test_answers_that_are_no_file(tiny, server, answer, said):
    server.answers["/a.tsv"] = answer
    tiny.fails(said)
    assert not tiny.cache.exists() or "bytes" in said


def test_nobody_answers(tiny, server):
    server.shutdown()
    server.server_close()
    tiny.fails("a.tsv cannot be reached: .*refused")


def test_offline(tiny, server, monkeypatch):
    server.answers["/a.tsv"] = DATA
    monkeypatch.setenv("BERTKERAS_OFFLINE", "1")
    tiny.fails("BERTKERAS_OFFLINE is set, so http://127.0.0.1:[0-9]+/a.tsv is not fetched")
    assert server.asked == []


def test_a_second_address(tiny, server):
    tiny.know(**{"from": [f"{server.address}gone/", f"{server.address}other/", server.address]}, sha256=sha256(DATA))
    server.answers |= {"/other/a.tsv": b"other", "/a.tsv": DATA}
    assert load("tiny") == EXAMPLES
    assert server.asked == ["/gone/a.tsv", "/other/a.tsv", "/a.tsv"]
    tiny.path.unlink()
    server.answers.clear()
    tiny.fails("/gone/a.tsv answers 404 Not Found; http.*/other/a.tsv answers 404 Not Found; http.*/a.tsv answers 404")


def test_what_cannot_be_checked(tiny, server):
    tiny.know()
    server.answers["/a.tsv"] = DATA
    tiny.fails("what http.*/a.tsv gives cannot be checked, pass unchecked=True to take it as it is")
    assert server.asked == []
    assert load("tiny", unchecked=True) == load("tiny") == EXAMPLES


def test_a_known_hash_is_checked_all_the_same(tiny, server):
    server.answers["/a.tsv"] = DATA.replace(b"good", b"evil")
    tiny.fails("and was not kept", unchecked=True)


def test_without_a_known_size_there_is_a_limit(tiny, server, monkeypatch):
    monkeypatch.setattr(download, "LARGEST", 20)
    tiny.know(sha256=sha256(DATA))
    server.answers["/a.tsv"] = DATA
    tiny.fails("larger than the 20 bytes")


def redirect(target):
    def answer(handler):
        handler.send_response(302)
        handler.send_header("Location", target)
        handler.end_headers()

    return answer


def test_redirections(tiny, server, tmp_path, monkeypatch):
    server.answers |= {"/a.tsv": redirect("/b.tsv"), "/b.tsv": DATA}
    assert load("tiny") == EXAMPLES
    tiny.path.unlink()
    (tmp_path / "secret").write_bytes(DATA)
    for target in (f"file://{tmp_path}/secret", "ftp://127.0.0.1/a.tsv", "http://127.0.0.2/a.tsv"):
        server.answers["/a.tsv"] = redirect(target)
        tiny.fails("does not begin with http://127.0.0.1|cannot be reached|answers 302")
    server.answers["/a.tsv"] = redirect("/a.tsv")
    tiny.fails("answers 302")


@pytest.mark.parametrize("address", ["http://example.org/", "ftp://example.org/", "file:///etc/"])
def test_only_https(tiny, monkeypatch, address):
    monkeypatch.setattr(download, "SCHEME", "https://")
    tiny.know(**{"from": address}, sha256=sha256(DATA))
    tiny.fails(f"{address}a.tsv does not begin with https://")


# Archives

OTHER = {"split": "test", "file": "deep/b.tsv", "from": [], "at": "deep/b.tsv"}


@pytest.mark.parametrize(("name", "pack"), [("x.zip", zipped), ("x.tar.gz", tarred)])
@pytest.mark.parametrize("known", ["file", "archive", "both"])
def test_members_of_archives(tiny, server, name, pack, known):
    packed = pack({"top/a.tsv": DATA, "top/deep/b.tsv": DATA[:19], "../evil": b"never", "top/more": b"x"})
    url = server.address + name
    archives = {url: {"sha256": sha256(packed), "bytes": len(packed)}} if known != "file" else {}
    content = {"sha256": sha256(DATA), "bytes": len(DATA)} if known != "archive" else {}
    tiny.know([{**OTHER, "from": f"{url}!top/"}], archives, **{"from": f"{url}!top/"}, **content)
    server.answers[f"/{name}"] = packed
    assert load("tiny") == EXAMPLES
    assert load("tiny", "test") == EXAMPLES[:1]
    assert server.asked == [f"/{name}"], "both files came with one archive"
    assert sorted(path.name for path in tiny.cache.rglob("*") if path.is_file()) == ["a.tsv", "b.tsv"]


@pytest.mark.parametrize(("name", "pack"), [("x.zip", zipped), ("x.tar.gz", tarred)])
def test_archives_that_went_wrong(tiny, server, name, pack):
    url = server.address + name
    packed = pack({"a.tsv": DATA, "folder/": b""})
    bomb = pack({"a.tsv": b"\0" * 10_000_000})
    archives = {url: {"sha256": sha256(packed), "bytes": len(packed)}}
    for data, known, said in [
        (packed, {"sha256": "0" * 64, "bytes": len(DATA)}, f"a.tsv in {url} has the SHA-256 {sha256(DATA)}, not 0000"),
        (bomb, {"sha256": "0" * 64, "bytes": len(DATA)}, f"a.tsv in {url} is larger than the 28 bytes"),
        (packed, {"sha256": "0" * 64, "at": "c.tsv"}, f"{name} has no c.tsv"),
        (packed[: len(packed) // 2], {"sha256": sha256(DATA)}, f"{name} is damaged: "),
        (b"no archive", {"sha256": sha256(DATA)}, f"{name} is damaged: "),
        (packed.replace(packed[40:60], b"?" * 20), {"sha256": sha256(DATA)}, f"{name} is damaged|has the SHA-256"),
    ]:
        tiny.know(**{"from": f"{url}!"}, **known)
        server.answers[f"/{name}"] = data
        tiny.fails(said)
    tiny.know(archives=archives, **{"from": f"{url}!"})
    server.answers[f"/{name}"] = packed[:-1] + b"?"
    tiny.fails(f"/{name} has the SHA-256 .*, not {sha256(packed)}, and was not kept")
    tiny.know(**{"from": f"{url}!"})
    tiny.fails(f"what {url} gives cannot be checked")


def test_reviews_are_put_into_one_file(tiny, server):
    members = {f"m/{label}/cv{fold}00_1.txt": f'{label} "{fold}"\n' for label in ("pos", "neg") for fold in (3, 0)}
    packed = zipped({**members, "m/README": "not read"})
    expected = "".join(
        f'{{"id": "cv{fold}00_1", "label": "{label}", "fold": {fold}, "text": "{label} \\"{fold}\\"\\n"}}\n'
        for label in ("neg", "pos")
        for fold in (0, 3)
    ).encode()
    server.answers["/x.zip"] = packed
    tiny.know(make="movie-reviews", sha256=sha256(expected), **{"from": f"{server.address}x.zip!m/"})
    assert locate("tiny").read_bytes() == expected
    tiny.path.unlink()
    server.answers["/x.zip"] = zipped({"m/other.txt": "x"})
    tiny.fails("x.zip is damaged: ")


def test_the_reviews_of_the_data_home_are_made_so(tiny, server):
    path = os.path.join(HOME or "", "movie-reviews-v2", "movie_reviews.jsonl.gz")
    if not os.path.isfile(path):
        pytest.skip("movie-reviews-v2 is not in BERTKERAS_DATA_HOME")
    with gzip.open(path) as file:
        data = file.read()
    records = [json.loads(line) for line in data.splitlines()]
    members = {f"movie_reviews/{r['label']}/{r['id']}.txt": r["text"].encode() for r in reversed(records)}
    server.answers["/x.zip"] = zipped(members)
    tiny.know(make="movie-reviews", sha256=sha256(data), **{"from": f"{server.address}x.zip!movie_reviews/"})
    assert locate("tiny") == tiny.path


HOME = os.environ.get("BERTKERAS_DATA_HOME")


# Files that are here


@pytest.fixture
def home(tmp_path, monkeypatch, tiny):
    monkeypatch.setenv("BERTKERAS_DATA_HOME", str(tmp_path / "home"))
    (tmp_path / "home" / "tiny").mkdir(parents=True)
    return tmp_path / "home" / "tiny"


def test_the_home_comes_before_the_cache(home, tiny, server):
    server.answers["/a.tsv"] = DATA
    assert locate("tiny") == tiny.path
    (home / "a.tsv.gz").write_bytes(gzip.compress(DATA))
    assert locate("tiny") == home / "a.tsv.gz"
    assert load("tiny") == EXAMPLES
    (home / "a.tsv").write_bytes(DATA)
    assert locate("tiny") == home / "a.tsv"
    assert server.asked == ["/a.tsv"]


@pytest.mark.parametrize(
    ("name", "data", "said"),
    [
        ("a.tsv", DATA[:-1], f"a.tsv is another file: its SHA-256 is {sha256(DATA[:-1])}, not {sha256(DATA)}; replace"),
        ("a.tsv", gzip.compress(DATA, mtime=0), "a.tsv is another file"),
        ("a.tsv.gz", gzip.compress(b"other", mtime=0), f"a.tsv.gz is another file: its SHA-256 is {sha256(b'other')}"),
        ("a.tsv.gz", DATA, "a.tsv.gz cannot be read: Not a gzipped file"),
        ("a.tsv.gz", gzip.compress(DATA, mtime=0)[:-9], "a.tsv.gz cannot be read: "),
    ],
)
@pytest.mark.parametrize("place", ["home", "cache"])
def test_another_file_in_its_place_is_no_reason_to_fetch(home, tiny, server, place, name, data, said):
    path = (home if place == "home" else tiny.path.parent) / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    server.answers["/a.tsv"] = DATA
    with pytest.raises(BertKerasError, match=said) as caught:
        load("tiny")
    assert str(caught.value).startswith(f"{path} ")
    assert server.asked == []
    path.write_bytes(gzip.compress(DATA) if name.endswith("gz") else DATA)  # replaced: it is looked at again
    assert load("tiny") == EXAMPLES


def test_a_file_is_hashed_once(home, tiny, monkeypatch):
    (home / "a.tsv").write_bytes(DATA)
    seen = []
    digest = hashlib.file_digest
    monkeypatch.setattr(hashlib, "file_digest", lambda *args: seen.append(args) or digest(*args))
    assert load("tiny") == load("tiny") == EXAMPLES
    assert len(seen) == 1


def test_of_a_file_that_was_put_there_the_hash_may_be_unknown(home, tiny):
    tiny.know()
    (home / "a.tsv").write_bytes(DATA)
    assert load("tiny") == EXAMPLES


def test_a_cache_that_cannot_be_written(tiny, server):
    server.answers |= {"/a.tsv": DATA, "/x.zip": zipped({"a.tsv": DATA})}
    tiny.cache.write_text("a file")
    with pytest.raises(BertKerasError, match="cannot write .*/cache/tiny/a.tsv: "):
        load("tiny")
    tiny.know(**{"from": f"{server.address}x.zip!"}, sha256=sha256(DATA))
    with pytest.raises(BertKerasError, match="cannot write .*/cache: "):
        load("tiny")
    assert tiny.cache.read_text() == "a file"


def test_the_cache_is_in_the_home_of_the_user(monkeypatch, tmp_path):
    monkeypatch.delenv("BERTKERAS_CACHE", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert download.cache_folder() == tmp_path / ".cache" / "bertkeras"
