"""`prepare` for corpora too large for one machine: the same files, made by the workers of an Apache Beam pipeline.

The documents are tokenised in any order by any worker. Their sizes alone, a few bytes each, decide where all of them
go, so one worker lays them out as `prepare` does, and what it finds is sent to the others. Rows are cheap to make and
large to move: they are made once to be counted, which tells the number of each, and once more to be written.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import shutil
import sys
import uuid
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bertkeras.errors import BertKerasError
from bertkeras.pipelines.beam_steps import SUMMARY_FILE, Steps
from bertkeras.pipelines.documents import Segmenter
from bertkeras.pipelines.layout import PARTS, Layout
from bertkeras.pipelines.prepare import Prepared, begin, check_rows, finish
from bertkeras.pipelines.records import Records, write_index
from bertkeras.pipelines.sentence_pairs import RowOptions
from bertkeras.pipelines.shards import Shard
from bertkeras.text.corpus import Corpus
from bertkeras.text.wordpiece import WordPieceTokenizer

# Options given later win. What the processes on this machine say of themselves while all is well is not shown.
DEFAULTS = ("--direct_num_workers=0", "--direct_running_mode=multi_processing", "--default_sdk_harness_log_level=ERROR")


def prepare_with_beam(
    corpus: Corpus,
    tokenizer: WordPieceTokenizer,
    folder: str | os.PathLike[str],
    options: RowOptions,
    *,
    passes: int = 4,
    held_out_share: float = 0.02,
    segmenter: Segmenter | None = None,
    block_tokens: int = 2**22,
    rows_per_shard: int = 2**14,
    pipeline_options: Sequence[str] = (),
) -> Prepared:
    """Write, in an Apache Beam pipeline, what `prepare` writes: the same bytes, whatever runs it.

    Files of the corpus are read in parallel, and all that follows whatever the files; `installed-docs` and one large
    file are read by a single worker. Everything is written to `folder.partial` first, a shard only under its name when
    it is whole, and moved to `folder` at the end. What a killed pipeline left is cleared by the next one.

    Args:
        corpus: Its files lie where every worker finds them under the same path, and so does `folder`.
        tokenizer: Makes the pieces, and is saved beside the rows.
        folder: Must not exist.
        options: How documents become rows.
        passes: Times the training text is cut into rows.
        held_out_share: Share of the documents kept from training, for the evaluation.
        segmenter: As for `prepare`. It is sent to the workers: one that cannot be pickled, such as `jieba.lcut`, by
            its name, `NamedSegmenter("jieba:lcut")`.
        block_tokens: Tokens that a worker holds in memory.
        rows_per_shard: Rows in a file.
        pipeline_options: Of Beam, such as `["--runner=FlinkRunner", "--flink_master=host:8081"]`; none means as many
            processes on this machine as it has cores. The workers of another runner need `bertkeras[beam]`.

    Returns:
        The rows, the counts and the statistics.

    Raises:
        BertKerasError: Beam is not installed, the pipeline failed, or anything that `prepare` raises.
    """
    _check_beam()
    folder = Path(folder).absolute()
    partial = begin(folder, passes, held_out_share)
    attempt = partial / uuid.uuid4().hex  # workers of a killed pipeline may live on for a while; they write elsewhere
    tokenizer.save(attempt)
    steps = Steps(
        corpus,
        attempt,
        options,
        vocabulary_size=tokenizer.vocabulary_size,
        passes=passes,
        held_out_share=held_out_share,
        segmenter=segmenter,
        block_tokens=block_tokens,
        rows_per_shard=rows_per_shard,
    )
    try:
        pipeline = _pipeline(pipeline_options)
        _connect(pipeline, steps)
        state = pipeline.run().wait_until_finish()
        if state not in (None, "DONE"):
            raise BertKerasError(f"the Beam pipeline ended as {state}; its runner has written why")
    except Exception as error:
        raise _told(error) from error
    summary = _read_summary(attempt)
    if not summary["chunks"]:
        raise corpus.empty_error()
    layout = Layout(**summary["layout"])
    shards = {part: tuple(Shard(**shard) for shard in summary["shards"][part]) for part in PARTS}
    check_rows({part: sum(shard.rows for shard in shards[part]) for part in PARTS}, layout, options)
    records = {}
    for part in PARTS:
        for left in (attempt / part).glob(".*"):  # by a worker that died while it wrote
            left.unlink(missing_ok=True)
        has_boundaries, tokens = segmenter is not None, summary["tokens"][part]
        index = Records(attempt / part, options, tokenizer.fingerprint(), has_boundaries, tokens, shards[part])
        records[part] = write_index(index)
    prepared = finish(attempt, folder, tokenizer, layout, records, summary["unpaired"], passes)
    shutil.rmtree(partial, ignore_errors=True)
    return prepared


def _connect(pipeline: Any, steps: Steps) -> None:
    """The pipeline: each step with what flows into it."""
    import apache_beam as beam
    from apache_beam.pvalue import AsSingleton

    units = pipeline | "Units" >> beam.Create(steps.units()) | "SpreadUnits" >> beam.Reshuffle()
    texts = units | "Read" >> beam.FlatMap(steps.read) | "SpreadTexts" >> beam.Reshuffle()
    chunks = texts | "Tokenise" >> beam.Map(steps.tokenise)
    sizes = chunks | "Measure" >> beam.Map(steps.measure) | "Sizes" >> beam.combiners.ToList()
    plan = AsSingleton(sizes | "LayOut" >> beam.Map(steps.lay_out))

    placed = chunks | "Place" >> beam.FlatMap(steps.place, plan) | "GroupBlocks" >> beam.GroupByKey()
    blocks = placed | "Join" >> beam.Map(steps.join)
    ngrams = blocks | "CountNgrams" >> beam.FlatMap(steps.count_ngrams, plan)
    counts = AsSingleton(blocks | "CountRows" >> beam.FlatMap(steps.count_rows) | "Counts" >> beam.combiners.ToList())

    rows = blocks | "MakeRows" >> beam.FlatMap(steps.make_rows, counts) | "GroupShards" >> beam.GroupByKey()
    shards = rows | "Write" >> beam.Map(steps.write) | "Shards" >> beam.combiners.ToList()
    all_ngrams = AsSingleton(ngrams | "AddNgrams" >> beam.CombineGlobally(steps.add_ngrams))
    end = pipeline | "End" >> beam.Create([None])
    _ = end | "Conclude" >> beam.Map(steps.conclude, plan, counts, AsSingleton(shards), all_ngrams)


def _check_beam() -> None:
    try:
        import apache_beam  # noqa: F401
    except ImportError as error:
        message = f'Apache Beam is not installed ({error}); run: pip install "bertkeras[beam]"'
        raise BertKerasError(message) from None


def _pipeline(arguments: Sequence[str]) -> Any:
    """An empty pipeline on the runner that the arguments name, or on this machine."""
    import apache_beam as beam
    from apache_beam.options.pipeline_options import PipelineOptions, StandardOptions

    if isinstance(arguments, str) or not all(argument.startswith("--") for argument in arguments[:1]):
        raise BertKerasError(f"pipeline options are a list of --name=value, got {arguments!r}")
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):  # Beam prints its hundreds of options before what is wrong with one
            options = PipelineOptions([*DEFAULTS, *arguments])
            options.get_all_options()
    except SystemExit:
        problem = printed.getvalue().strip().rpartition("error: ")[2]
        raise BertKerasError(f"Beam cannot use {' '.join(arguments)}: {problem}") from None
    sys.stderr.write(printed.getvalue())
    runner = options.view_as(StandardOptions).runner
    return beam.Pipeline(_direct_runner(options) if runner in (None, "DirectRunner") else runner, options)


def _direct_runner(options: Any) -> Any:
    """What Beam's `DirectRunner` falls back on; that one first tries to download another runner."""
    from apache_beam.portability.api import beam_provision_api_pb2
    from apache_beam.runners.portability.fn_api_runner import fn_runner
    from apache_beam.runners.portability.portable_runner import JobServiceHandle

    encoded = JobServiceHandle.encode_pipeline_options(options.get_all_options())
    information = fn_runner.ExtendedProvisionInfo(beam_provision_api_pb2.ProvisionInfo(pipeline_options=encoded))
    return fn_runner.FnApiRunner(provision_info=information)


def _told(error: Exception) -> BertKerasError:
    """The error of ours that a worker raised, or what Beam says: its last line, after the tracebacks."""
    text = f"{type(error).__name__}: {error}"
    found = re.search(r"BertKerasError: (.*?)(?: \[while running .*)?$", text, re.MULTILINE)
    if found:
        return BertKerasError(found[1])
    return BertKerasError(f"the Beam pipeline failed: {text.strip().splitlines()[-1]}")


def _read_summary(folder: Path) -> dict[str, Any]:
    path = folder / SUMMARY_FILE
    try:
        summary = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise BertKerasError(
            f"the Beam pipeline ended, but {path} is not here; the folder must lie where all workers find it"
        ) from None
    path.unlink()
    return summary
