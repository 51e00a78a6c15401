"""The page's numbers are Python's: the scripts run under Node.js, and in Chromium where there is one."""

import json
import shutil
import subprocess

import numpy as np
import pytest

from bertkeras import BertKerasError, BertMaskedLM, BertTextClassifier, BertTokenClassifier, WordPieceTokenizer
from bertkeras.analysis import trace
from tests.analysis.small import CONFIG, TOKENIZER, drawn

pytest.importorskip("onnx", reason="onnx is not installed")
from bertkeras.export import export_browser

NODE = shutil.which("node")
TEXTS = [
    "The cat sat on the [MASK].",
    "他是[MASK]，she ran",
    "cats dogs\tmats\n\n, . unknownword",
    "Café naïve Ünï ŉ ǅ İ ß ﬁ",
    "a​b﻿c\x00d\x07e",
    "“quotes” – dashes… ¿que? 「括」 $5+3=8 ^~`|",
    "x" * 150 + " the",
    "𝒳 👍 the 𠀀 cat",
    "",
]


def run_script(folder, code):
    """A script under Node.js with the page's own scripts before it; its last line, read as JSON."""
    script = folder / "test.js"
    page = (folder / "bertkeras.js").read_text(encoding="utf-8")
    script.write_text(f"{page}\n(async () => {{ {code} }})();", encoding="utf-8")
    run = subprocess.run([NODE, script], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout.splitlines()[-1])


@pytest.fixture
def scripts(tmp_path):
    """The page's scripts without the runtime."""
    import importlib.resources

    for name in ("bertkeras.js",):
        source = importlib.resources.files("bertkeras.export").joinpath("browser", name)
        (tmp_path / name).write_bytes(source.read_bytes())
    return tmp_path


@pytest.mark.skipif(NODE is None, reason="Node.js is not installed")
@pytest.mark.parametrize("options", [{}, {"lowercase": False}, {"strip_accents": False}, {"split_cjk": False}], ids=str)
def test_pieces_are_those_of_python(options, scripts):
    pieces = [
        *TOKENIZER.vocabulary,
        "cafe",
        "café",
        "naive",
        "ss",
        "x",
        "b",
        "##c",
        "a",
        "“",
        "”",
        "…",
        "$",
        "+",
        "=",
        "5",
        "3",
    ]
    tokenizer = WordPieceTokenizer(pieces, **options)
    described = {**tokenizer.get_config(), "strip_accents": tokenizer.strips_accents}
    (scripts / "tokenizer.json").write_text(json.dumps({"tokenizer": described, "texts": TEXTS}), encoding="utf-8")
    found = run_script(
        scripts,
        "const { tokenizer, texts } = JSON.parse(require('fs').readFileSync(__dirname + '/tokenizer.json'));"
        "const wordPiece = new bertkeras.WordPiece(tokenizer);"
        "console.log(JSON.stringify(texts.map((text) => wordPiece.encode(text, true))));",
    )
    expected = [tokenizer.encode(t, add_special_tokens=False, special_tokens_in_text=True).ids for t in TEXTS]
    assert found == expected


def test_only_what_the_page_can_show(tmp_path):
    for models, message in [
        ([], "needs a model at least"),
        ([drawn(BertTokenClassifier, 2)], "no place for a BertTokenClassifier"),
        ([BertMaskedLM(CONFIG)], "needs a tokenizer"),
    ]:
        with pytest.raises(BertKerasError, match=message):
            export_browser(models, tmp_path / "page")
    (tmp_path / "file").touch()
    with pytest.raises(BertKerasError, match="is not empty"):
        export_browser([drawn(BertMaskedLM)], tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_without_npm_there_is_one_clear_line(tmp_path, monkeypatch):
    monkeypatch.setattr("bertkeras.export.browser.shutil.which", lambda name: None)
    monkeypatch.setattr("bertkeras.export.browser.sys.executable", str(tmp_path / "python"))
    with pytest.raises(BertKerasError, match="npm is not there"):
        export_browser([drawn(BertMaskedLM)], tmp_path / "page")
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    models = [drawn(BertMaskedLM, scale=0.15), drawn(BertTextClassifier, 3, labels=["a", "b", "c"], scale=0.15)]
    try:
        return models, export_browser(models, tmp_path_factory.mktemp("page") / "page", weights="float32")
    except BertKerasError as error:
        pytest.skip(str(error))


def test_numbers_in_chromium_are_those_of_python(page):
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    models, folder = page
    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if chromium is None:
        pytest.skip("no Chromium")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        tab = browser.new_page()
        requests, errors = [], []
        tab.on("request", lambda request: requests.append(request.url))
        tab.on("pageerror", lambda error: errors.append(str(error)))
        tab.goto((folder / "index.html").as_uri())
        tab.wait_for_selector("#bertkeras[data-ready]", timeout=60_000)
        assert errors == []
        assert all(url.startswith(("file:", "blob:")) for url in requests), requests
        text, blank = "the cat sat, he ran on the mat.", "the [MASK] sat on the [MASK]."
        found = tab.evaluate(
            """async ([text, blank]) => {
                const models = await bertkeras.loadModels(bertkerasAssets);
                const { weights, layers } = await models[0].attention(text);
                return {
                    filled: await models[0].fillMask(blank, 3),
                    classes: await models[1].classify(text),
                    attention: Array.from({ length: layers }, (_, layer) => weights(layer, 1)),
                };
            }""",
            [text, blank],
        )
        browser.close()
    expected = models[0].fill_mask(blank, top_k=3)[0]
    assert [[f["token"] for f in b] for b in found["filled"]] == [[f.token for f in b] for b in expected]
    probabilities = [[f["probability"] for f in b] for b in found["filled"]]
    np.testing.assert_allclose(probabilities, [[f.probability for f in b] for b in expected], atol=1e-4)
    classes = {row["label"]: row["probability"] for row in found["classes"]}
    assert classes == pytest.approx(models[1].classify(text)[0].probabilities, abs=1e-4)
    np.testing.assert_allclose(found["attention"], trace(models[0], text)[0].attention[:, 1], atol=1e-4)
