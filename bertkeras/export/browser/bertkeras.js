// A BERT in the browser: the tokenizer, the model, and a panel for each thing it can do.
// The numbers are those of Python: onnxruntime computes the same file, compiled to WebAssembly.
"use strict";

const bertkeras = (() => {
  // Text to word pieces, as `WordPieceTokenizer` does it.
  class WordPiece {
    constructor({ vocabulary, lowercase, strip_accents, split_cjk, max_characters_per_word, continuation_prefix }) {
      this.pieces = vocabulary;
      this.ids = new Map(vocabulary.map((piece, id) => [piece, id]));
      Object.assign(this, { lowercase, strip_accents, split_cjk, max_characters_per_word, continuation_prefix });
    }

    id(piece) {
      return this.ids.get(piece);
    }

    // The ids of a text, without [CLS] and [SEP]; with `blanks`, [MASK] in it is a blank.
    encode(text, blanks = false) {
      const parts = blanks ? text.split("[MASK]") : [text];
      return parts.flatMap((part, index) => [
        ...(index ? [this.id("[MASK]")] : []),
        ...this.words(part).flatMap((word) => this.cut(word)),
      ]);
    }

    words(text) {
      let characters = [...text].flatMap((character) => {
        if (/[\0\ufffd]/.test(character)) return [];
        if (/[\t\n\r]|\p{White_Space}/u.test(character)) return [" "];
        if (/\p{C}/u.test(character)) return [];
        return this.split_cjk && isChinese(character.codePointAt(0)) ? [" ", character, " "] : [character];
      });
      if (this.strip_accents) characters = [...characters.join("").normalize("NFD").replace(/\p{Mn}/gu, "")];
      if (this.lowercase) characters = characters.map((character) => character.toLowerCase());
      return characters.join("").replace(/[!-/:-@[-`{-~]|\p{P}/gu, " $& ").split(" ").filter(Boolean);
    }

    // The longest piece that a word begins with, then the longest that its rest goes on with.
    cut(word) {
      const characters = [...word], found = [];
      if (characters.length > this.max_characters_per_word) return [this.id("[UNK]")];
      for (let begin = 0; begin < characters.length; ) {
        let end = characters.length, id;
        for (; end > begin; end--) {
          id = this.id((begin ? this.continuation_prefix : "") + characters.slice(begin, end).join(""));
          if (id !== undefined) break;
        }
        if (id === undefined) return [this.id("[UNK]")];
        found.push(id);
        begin = end;
      }
      return found;
    }
  }

  const CHINESE = [[0x4e00, 0x9fff], [0x3400, 0x4dbf], [0x20000, 0x2a6df], [0x2a700, 0x2b73f], [0x2b740, 0x2b81f],
    [0x2b920, 0x2ceaf], [0xf900, 0xfaff], [0x2f800, 0x2fa1f]];
  const isChinese = (code) => CHINESE.some(([first, last]) => first <= code && code <= last);

  // A model and its tokenizer.
  class Model {
    static async load(bytes, tokenizer, about) {
      const model = new Model();
      model.session = await ort.InferenceSession.create(bytes, { executionProviders: ["wasm"] });
      model.tokenizer = new WordPiece(tokenizer);
      model.about = about;
      return model;
    }

    // What the model computes for one text: its outputs by name, each `{ data, dims }`, and the pieces.
    async run(text) {
      const tokenizer = this.tokenizer, isMaskedLM = this.about.model === "BertMaskedLM";
      const ids = [tokenizer.id("[CLS]"), ...tokenizer.encode(text, isMaskedLM), tokenizer.id("[SEP]")];
      const longest = this.about.config.max_sequence_length;
      if (ids.length > longest) throw new RangeError(`The text has ${ids.length} pieces; this model reads ${longest}.`);
      const row = (type, values) => new ort.Tensor(type, values, [1, values.length]);
      const feeds = {
        token_ids: row("int32", Int32Array.from(ids)),
        segment_ids: row("int32", new Int32Array(ids.length)),
        padding_mask: row("bool", new Uint8Array(ids.length).fill(1)),
      };
      const blanks = ids.flatMap((id, place) => (id === tokenizer.id("[MASK]") ? [place] : []));
      if (isMaskedLM) feeds.mask_positions = row("int32", Int32Array.from(blanks.length ? blanks : [0]));
      const begin = performance.now(), outputs = await this.session.run(feeds);
      return { outputs, blanks, tokens: ids.map((id) => tokenizer.pieces[id]), milliseconds: performance.now() - begin };
    }

    // For each [MASK] the likeliest pieces, as `{ token, probability }`.
    async fillMask(text, count = 8) {
      const { outputs, blanks } = await this.run(text), [, , size] = outputs.logits.dims;
      return blanks.map((_, index) => {
        const known = outputs.logits.data.subarray(index * size, index * size + this.tokenizer.pieces.length);
        const found = Array.from(softmax(known), (probability, id) => ({ token: this.tokenizer.pieces[id], probability }));
        return found.sort((a, b) => b.probability - a.probability).slice(0, count);
      });
    }

    // The probability of each label.
    async classify(text) {
      const { task, labels, temperature = 1 } = this.about.options, { outputs } = await this.run(text);
      const scores = outputs.logits.data.map((score) => score / temperature);
      const values = task === "multi_label" ? scores.map((score) => 1 / (1 + Math.exp(-score))) : softmax(scores);
      return Array.from(values, (probability, id) => ({ label: labels?.[id] ?? String(id), probability }));
    }

    // The pieces, and who looks at whom: `weights(layer, head)` gives rows of queries; all heads where head is -1.
    async attention(text) {
      const { outputs, tokens } = await this.run(text), { data, dims } = outputs.attention;
      const [layers, , heads, length] = dims;
      const one = (layer, head, query, key) => data[((layer * heads + head) * length + query) * length + key];
      const mean = (layer, query, key) =>
        Array.from({ length: heads }, (_, head) => one(layer, head, query, key)).reduce((a, b) => a + b) / heads;
      const weights = (layer, head) =>
        tokens.map((_, query) => tokens.map((_, key) => (head < 0 ? mean(layer, query, key) : one(layer, head, query, key))));
      return { tokens, layers, heads, weights };
    }
  }

  function softmax(scores) {
    const largest = scores.reduce((a, b) => Math.max(a, b), -Infinity);
    const powers = Float64Array.from(scores, (score) => Math.exp(score - largest));
    const sum = powers.reduce((a, b) => a + b, 0);
    return powers.map((power) => power / sum);
  }

  // What lies in `assets.js`, unpacked.
  async function unpack(base64) {
    const packed = Uint8Array.from(atob(base64), (character) => character.charCodeAt(0));
    const stream = new Blob([packed]).stream().pipeThrough(new DecompressionStream("gzip"));
    return new Uint8Array(await new Response(stream).arrayBuffer());
  }

  async function loadModels(assets) {
    const [script, program] = await Promise.all([unpack(assets.runtime.mjs), unpack(assets.runtime.wasm)]);
    ort.env.wasm.numThreads = 1;
    ort.env.wasm.wasmBinary = program.buffer;
    ort.env.wasm.wasmPaths = { mjs: URL.createObjectURL(new Blob([script], { type: "text/javascript" })) };
    const models = [];
    for (const { onnx, tokenizer, about } of assets.models) models.push(await Model.load(await unpack(onnx), tokenizer, about));
    return models;
  }

  // The page: elements, and panels that answer while one types.
  function element(name, attributes = {}, ...children) {
    const made = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
    made.append(...children);
    return made;
  }

  const percent = (value) => `${(100 * value).toFixed(1)} %`;

  function bars(rows) {
    return element("table", { class: "bk-bars" }, ...rows.map(([name, value]) => element("tr", {},
      element("th", { scope: "row" }, name),
      element("td", {}, element("span", { class: "bk-bar", style: `width: ${(100 * value).toFixed(1)}%` })),
      element("td", { class: "bk-number" }, percent(value)))));
  }

  let panels = 0;

  function panel(root, title, hint, text, answer, extra = []) {
    const id = `bk-${++panels}`, result = element("div", { class: "bk-result", "aria-live": "polite" });
    const input = element("textarea", { id, rows: "2", spellcheck: "false" });
    input.value = text;
    const section = element("section", { class: "bk-panel" }, element("h3", {}, title),
      element("label", { for: id }, hint), input, ...extra, result);
    root.append(section);
    let asked = 0;
    const update = async () => {
      const number = ++asked;
      let shown;
      try {
        shown = await answer(input.value);
      } catch (error) {
        shown = [element("p", { class: "bk-error" }, error.message)];
      }
      if (number === asked) result.replaceChildren(...shown);
    };
    let timer;
    input.addEventListener("input", () => { clearTimeout(timer); timer = setTimeout(update, 120); });
    return update;
  }

  function fillMaskPanel(root, model, text) {
    return panel(root, "Fill the blank", "A sentence with [MASK] in it", text, async (sentence) => {
      if (!sentence.includes("[MASK]")) return [element("p", { class: "bk-error" }, "Write [MASK] where a word is to be found.")];
      const found = await model.fillMask(sentence);
      return found.map((blank) => bars(blank.map(({ token, probability }) => [token, probability])));
    });
  }

  function classifyPanel(root, model, text) {
    return panel(root, "What does it say?", "Any text", text, async (sentence) =>
      [bars((await model.classify(sentence)).map(({ label, probability }) => [label, probability]))]);
  }

  function attentionPanel(root, model, text) {
    const { num_layers, num_heads } = model.about.config;
    const choice = (count, name, first) => element("select", { "aria-label": name },
      ...first, ...Array.from({ length: count }, (_, i) => element("option", { value: i }, `${name} ${i + 1}`)));
    const layer = choice(num_layers, "Layer", []);
    const head = choice(num_heads, "Head", [element("option", { value: -1 }, "All heads")]);
    const update = panel(root, "Who looks at whom", "A sentence", text, async (sentence) => {
      const { tokens, weights } = await model.attention(sentence), rows = weights(+layer.value, +head.value);
      const header = element("tr", {}, element("td"), ...tokens.map((token) => element("th", { scope: "col" }, element("span", {}, token))));
      const cells = rows.map((row, query) => element("tr", {}, element("th", { scope: "row" }, tokens[query]),
        ...row.map((weight, key) => element("td", {
          style: `--weight: ${weight.toFixed(3)}`, title: `${tokens[query]} looks at ${tokens[key]}: ${percent(weight)}` },
          element("span", { class: "bk-hidden" }, percent(weight))))));
      return [element("p", { class: "bk-note" }, "Each row is a piece that looks; the stronger its blue, the more it sees of that column."),
        element("div", { class: "bk-scroll", tabindex: "0" }, element("table", { class: "bk-map" }, header, ...cells))];
    }, [element("div", { class: "bk-choices" }, layer, head)]);
    for (const select of [layer, head]) select.addEventListener("change", update);
    return update;
  }

  // Build the page in `root`; resolves when every panel has answered once.
  async function start(root, assets) {
    root.replaceChildren(element("p", { class: "bk-note" }, "Unpacking the model ..."));
    const begin = performance.now();
    let models;
    try {
      models = await loadModels(assets);
    } catch (error) {
      root.replaceChildren(element("p", { class: "bk-error" }, `The model could not be started: ${error.message}`));
      throw error;
    }
    root.replaceChildren();
    const updates = models.flatMap((model) => {
      const { blank, text } = model.about.examples;
      const made = model.about.model === "BertMaskedLM" ? [fillMaskPanel(root, model, blank)] : [classifyPanel(root, model, text)];
      return model.session.outputNames.includes("attention") ? [...made, attentionPanel(root, model, text)] : made;
    });
    await Promise.all(updates.map((update) => update()));
    root.dataset.ready = Math.round(performance.now() - begin);
    return models;
  }

  return { WordPiece, Model, loadModels, start };
})();
