"""How fast raw text becomes masked batches, stage by stage, beside `tokenizers`; and whether the memory stays flat.

Real text (articles of Wikipedia, in English and Chinese) is read, split into sentences, tokenised with the published
vocabulary of BERT, cut into next-sentence pairs of 128 pieces, written as records, read back and masked. The rate per
core is the pieces of the text over the processor seconds of the process, those of all its threads together. Each
round runs every stage alone, then all of them as a user does: `prepare` and one epoch of `pretraining_dataset`,
their set-up included. `tokenizers` gives the ids of the same sentences on one thread, in turns with ours.

Memory is the resident size of a process that prepares 1 GB of text, the English sample over and over.
"""

from __future__ import annotations

import argparse
import itertools
import os
import statistics
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ["TOKENIZERS_PARALLELISM"] = "false"

import numpy as np

from benchmarks.common import ROOT, Worker, machine, middle, serve, today, versions, write_rows, write_section

LENGTH, BATCH = 128, 256
LANGUAGES = {
    "English": ("enwiki-sample/enwiki-sample.txt.gz", "bert-base-uncased-vocab.txt"),
    "Chinese": ("zhwiki-sample/zhwiki-sample.txt.gz", "bert-base-chinese-vocab.txt"),
}
STAGES = ("reading", "splitting into sentences", "tokenising", "making pairs", "writing records", "masking")
WHOLE, PEER = "raw text to masked batches", "tokenizers"
PEER_SHARE = 4  # `tokenizers` gets every 4th batch of sentences: it would take most of the time
SHARES = (0.1, 0.25, 0.5, 1.0)  # of the corpus, after which the memory is told


def home() -> Path:
    folder = os.environ.get("BERTKERAS_DATA_HOME")
    if not folder or not Path(folder, "enwiki-sample").is_dir():
        raise SystemExit("set BERTKERAS_DATA_HOME to a folder with enwiki-sample, zhwiki-sample and bert-vocabs")
    return Path(folder)


def texts_of(language: str) -> Any:
    from bertkeras.text.corpus import Corpus

    return Corpus(home() / LANGUAGES[language][0])


def tokenizer_and_options(language: str) -> tuple[Any, Any]:
    from bertkeras import WordPieceTokenizer
    from bertkeras.pipelines.sentence_pairs import RowOptions

    tokenizer = WordPieceTokenizer.load(home() / "bert-vocabs" / LANGUAGES[language][1])
    ids = {"cls_id": tokenizer.cls_id, "sep_id": tokenizer.sep_id, "pad_id": tokenizer.pad_id}
    return tokenizer, RowOptions(LENGTH, **ids)


def masked_batches(records: Any, tokenizer: Any) -> Any:
    from bertkeras.pipelines.masking import Masking, default_max_predictions
    from bertkeras.pipelines.pretraining import pretraining_dataset

    predictions = default_max_predictions(LENGTH, 0.15)
    masking = Masking(tokenizer.vocabulary_size, tokenizer.mask_id, tokenizer.special_ids, predictions)
    return pretraining_dataset(records, masking, BATCH, repeat=False, drop_remainder=False)


# === The rates ===


def stages(language: str, documents: int, folder: Path) -> tuple[dict[str, int], dict[str, Callable[[int], object]]]:
    """What each stage does in a round, on what the stage before it gave, and the pieces that go through it."""
    from tokenizers import BertWordPieceTokenizer

    from bertkeras.pipelines.documents import SENTENCES_AT_ONCE, make_encoder, tokenised
    from bertkeras.pipelines.layout import Layout
    from bertkeras.pipelines.ngrams import NgramCounts
    from bertkeras.pipelines.prepare import blocks, prepare
    from bertkeras.pipelines.records import RecordWriter
    from bertkeras.pipelines.sentence_pairs import make_rows
    from bertkeras.text.corpus import split_sentences

    tokenizer, options = tokenizer_and_options(language)
    encode = make_encoder(tokenizer, None)

    def read() -> Iterator[str]:
        return itertools.islice(texts_of(language), documents)

    texts = list(read())
    sentences = [sentence for text in texts for sentence in split_sentences(text)]
    parts = [sentences[i : i + SENTENCES_AT_ONCE] for i in range(0, len(sentences), SENTENCES_AT_ONCE)]
    blocked = list(tokenised(texts, encode))
    pieces = sum(len(block.tokens) for block in blocked)

    def pairs(_: int) -> list[dict[str, Any]]:
        ngrams = NgramCounts(tokenizer.vocabulary_size)
        made = []
        for _, number, block in blocks(blocked, Layout(0, 0.02, 2**22)):
            made.append(make_rows(block, options, number, 0))
            ngrams.add(block.tokens, block.document_starts)
        return made

    rows = pairs(0)

    def write(turn: int) -> Any:
        writer = RecordWriter(folder / f"records-{turn}", options, "")
        for some in rows:
            writer.write(some)
        return writer.close()

    records = write(-1)
    dataset = masked_batches(records, tokenizer)

    def whole(turn: int) -> None:
        prepared = prepare(read(), tokenizer, folder / f"prepared-{turn}", options, passes=1)
        drain(masked_batches(prepared.train, tokenizer))

    peer = BertWordPieceTokenizer(os.fspath(home() / "bert-vocabs" / LANGUAGES[language][1]))

    def peer_ids(_: int) -> list[list[int]]:
        return [row.ids for part in parts[::PEER_SHARE] for row in peer.encode_batch(part, add_special_tokens=False)]

    ours = np.concatenate([encode(part).tokens for part in parts[::PEER_SHARE]])
    if ours.tolist() != list(itertools.chain(*peer_ids(0))):
        raise SystemExit(f"{language}: tokenizers gives other ids")
    work: dict[str, Callable[[int], object]] = {
        "reading": lambda _: list(read()),
        "splitting into sentences": lambda _: [split_sentences(text) for text in texts],
        "tokenising": lambda _: [encode(part) for part in parts],
        PEER: peer_ids,
        "making pairs": pairs,
        "writing records": write,
        "masking": lambda _: drain(dataset),
        WHOLE: whole,
    }
    return {**dict.fromkeys(work, pieces), PEER: len(ours), "masking": records.tokens}, work


def drain(batches: Any) -> None:
    for _ in batches:
        pass


def measure_rates(language: str, documents: int, rounds: int) -> dict[str, dict[str, Any]]:
    """For each stage the pieces per processor second and per second of the clock, round by round."""
    with tempfile.TemporaryDirectory() as folder:
        pieces, work = stages(language, documents, Path(folder))
        print(f"{language}: {documents:,} documents, {pieces[WHOLE]:,} pieces", flush=True)
        rates: dict[str, dict[str, Any]] = {name: {"core": [], "clock": []} for name in work}
        for turn in range(rounds + 1):
            for name, run in work.items():
                clock, core = time.perf_counter(), time.process_time()
                run(turn)
                core, clock = time.process_time() - core, time.perf_counter() - clock
                if turn:  # the first turn compiles
                    rates[name]["core"].append(pieces[name] / core)
                    rates[name]["clock"].append(pieces[name] / clock)
            if turn:
                told = (f"{name} {rate['core'][-1] / 1e6:.2f}" for name, rate in rates.items())
                print(f"round {turn} of {rounds}, million pieces per core second: {', '.join(told)}", flush=True)
    return rates


# === The memory ===


def start_worker() -> None:
    def start() -> Callable[[dict[str, Any]], dict[str, Any]]:
        return lambda command: measure_memory(command["gigabytes"])

    serve(start)


def measure_memory(gigabytes: float) -> dict[str, Any]:
    """Prepare the English sample over and over; the largest resident size up to each share of the text."""
    from bertkeras.pipelines.prepare import prepare

    tokenizer, options = tokenizer_and_options("English")
    size, read, largest, done = gigabytes * 1e9, 0, 0, threading.Event()
    points: dict[str, int] = {}

    def texts() -> Iterator[str]:
        nonlocal read
        for text in itertools.chain.from_iterable(itertools.repeat(texts_of("English"))):
            yield text
            read += len(text.encode()) + 2  # and the blank line after it
            if read >= size:
                return

    def watch() -> None:
        nonlocal largest
        while not done.wait(0.05):
            largest = max(largest, resident_mb())
            for share in SHARES[:-1]:
                if read >= share * size:
                    points.setdefault(f"{share:.0%}", largest)

    watcher = threading.Thread(target=watch)
    watcher.start()
    begin = time.process_time()
    try:
        with tempfile.TemporaryDirectory() as folder:
            prepared = prepare(texts(), tokenizer, Path(folder) / "prepared", options, passes=1)
    finally:
        done.set()
        watcher.join()
    pieces = prepared.statistics["tokens"]
    points[f"{SHARES[-1]:.0%}"] = largest
    return {"memory_mb": points, "pieces": pieces, "core_rate": pieces / (time.process_time() - begin)}


def resident_mb() -> int:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return round(pages * os.sysconf("SC_PAGE_SIZE") / 2**20)


# === The report ===


def record_of(rates: dict[str, dict[str, Any]], memory: dict[str, Any], gigabytes: float) -> dict[str, Any]:
    rows, ratios = [], {}
    for language, of in rates.items():
        for name, rate in of.items():
            is_peer, is_whole = name == PEER, name == WHOLE
            rows.append(
                {
                    "work": "tokenising",
                    "who": PEER if is_peer else "bertkeras",
                    "backend": "rust" if is_peer else "tensorflow",
                    "setting": f"{language}, {'tokenising' if is_peer else name}",
                    "tokens_per_second": round(statistics.median(rate["core"])),  # of one core
                    "wall_tokens_per_second": round(statistics.median(rate["clock"])),
                    "peak_memory_mb": memory["peak_memory_mb"] if is_whole and language == "English" else None,
                }
            )
        pairs = zip(of["tokenising"]["core"], of[PEER]["core"], strict=True)
        ratios[language] = {name: round(value, 2) for name, value in middle([a / b for a, b in pairs]).items()}
    points = memory["memory_mb"]
    return {
        "rows": rows,
        "ratios": {PEER: ratios},
        "whole": {
            language: {name: round(value) for name, value in middle(of[WHOLE]["core"]).items()}
            for language, of in rates.items()
        },
        "memory": {
            "gigabytes": gigabytes,
            "pieces": memory["pieces"],
            "largest_mb": points,
            "growth_from_quarter": round(points["100%"] / points["25%"] - 1, 4),
            "tokens_per_second": round(memory["core_rate"]),
        },
        "rounds": len(rates["English"][WHOLE]["core"]),
        "machine": machine(),
        "versions": versions("bertkeras", "tensorflow", "tensorflow-text", "tokenizers", "numpy"),
        "date": today(),
    }


def report(record: dict[str, Any]) -> str:
    found = {(row["setting"], row["who"]): row for row in record["rows"]}
    languages = list(record["whole"])

    def line(name: str, setting: str, who: str = "bertkeras") -> str:
        cells = []
        for language in languages:
            row = found[f"{language}, {setting}", who]
            cells += [f"{row['tokens_per_second'] / 1e6:.2f}", f"{row['wall_tokens_per_second'] / 1e6:.2f}"]
        return f"| {name} | {' | '.join(cells)} |"

    lines = [line(stage, stage) for stage in STAGES]
    lines.append(line(f"**{WHOLE}**", WHOLE))
    lines.append(line("tokenising with `tokenizers`", "tokenising", PEER))
    heads = " | ".join(f"{language}, one core | all cores" for language in languages)
    whole = "; ".join(
        f"{language} {of['median'] / 1e6:.2f} ({of['low'] / 1e6:.2f} to {of['high'] / 1e6:.2f})"
        for language, of in record["whole"].items()
    )
    ratios = "; ".join(
        f"{language} {of['median']:.1f} times ({of['low']:.1f} to {of['high']:.1f})"
        for language, of in record["ratios"][PEER].items()
    )
    memory = record["memory"]
    points = ", ".join(f"{value:,} MB after {share}" for share, value in memory["largest_mb"].items())
    return f"""## From raw text to masked batches

Millions of pieces a second: of one core (over the processor time of all threads), and by the clock.

| stage | {heads} |
|---|{"---:|" * 2 * len(languages)}
{chr(10).join(lines)}

From raw text to masked batches, per core, with quartiles:
{whole}.
Tokenising beside `tokenizers` on one thread, the same ids:
{ratios}.

Articles of Wikipedia, published vocabularies of BERT, next-sentence pairs of {LENGTH}, batches of {BATCH}. Pieces are
those of the text; of masking, those in the rows. The whole is `prepare` with one pass and one epoch, with their
set-up. Medians over {record["rounds"]} rounds.

Memory: `prepare` on {memory["gigabytes"]:g} GB of text ({memory["pieces"]:,} pieces; the English sample repeated) had a
resident size of at most {points} of the text: {memory["growth_from_quarter"]:+.1%} from a quarter to the end.

{record["machine"]}. {", ".join(f"{name} {version}" for name, version in record["versions"].items())}.
{record["date"]}, `{record["command"]}`."""


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tokenising", description=__doc__)
    parser.add_argument("--rounds", type=int, default=20, help="times that every stage runs (default: 20)")
    parser.add_argument("--documents", type=int, default=16000, help="of each language in a run (default: 16000, all)")
    parser.add_argument("--gigabytes", type=float, default=1.0, help="of text to measure the memory on (default: 1)")
    parser.add_argument("--smoke", action="store_true", help="a minute: 2 rounds of 500 documents, 0.02 GB")
    parser.add_argument("--output", type=Path, help="write JSON there and the text to the screen alone, for a trial")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        start_worker()
        return
    if options.smoke:
        options.rounds, options.documents, options.gigabytes = 2, 500, 0.02
    worker = Worker("benchmarks.tokenising", "--worker")
    memory = worker.ask(gigabytes=options.gigabytes)
    worker.close()
    if "error" in memory:
        raise SystemExit(f"memory: {memory['error']}")
    print(f"memory: {memory}", flush=True)
    rates = {language: measure_rates(language, options.documents, options.rounds) for language in LANGUAGES}
    sizes = f"--rounds {options.rounds} --documents {options.documents} --gigabytes {options.gigabytes:g}"
    record = {**record_of(rates, memory, options.gigabytes), "command": f"python -m benchmarks.tokenising {sizes}"}
    text = report(record)
    print(text)
    if not (options.smoke or options.output):
        write_section("tokenising", text)
    if not options.smoke or options.output:
        write_rows(options.output or ROOT / "book" / "results" / "performance.json", "tokenising", record)


if __name__ == "__main__":
    main()
