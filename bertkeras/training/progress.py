"""What a person sees of a run: a bar in a terminal, lines in a log file."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Self

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
from rich.table import Table

from bertkeras.models.masked_lm import Filling

LINE_SECONDS = 10.0  # between lines where there is no terminal


class Display:
    """Shows the progress of a run on a console.

    Args:
        console: Of `rich`; one that is no terminal gets a plain line now and then instead of a bar.
    """

    def __init__(self, console: Console) -> None:
        self.console = console

    @classmethod
    def silent(cls) -> Self:
        return cls(Console(quiet=True))

    def say(self, text: str) -> None:
        self.console.print(escape(text), soft_wrap=True)

    @contextlib.contextmanager
    def counting(self) -> Iterator[Callable[[int, int], None]]:
        """Shows documents and tokens as they are read."""
        columns = (
            TextColumn("{task.fields[documents]:,} documents, {task.fields[tokens]:,} pieces"),
            TimeElapsedColumn(),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task("", total=None, documents=0, tokens=0)
            yield lambda documents, tokens: progress.update(task, documents=documents, tokens=tokens)

    @contextlib.contextmanager
    def training(
        self, steps: int, done: int, text_of: Callable[[dict[str, float]], str] | None = None
    ) -> Iterator[Callable[[int, dict[str, float] | None], None]]:
        """Shows the step, and at each line of the log its figures; `text_of` writes them."""
        text_of = text_of or figures_text
        if not self.console.is_terminal:
            yield self._lines(steps, done, text_of)
            return
        columns = (
            BarColumn(bar_width=20),
            MofNCompleteColumn(),
            TextColumn("{task.fields[figures]}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self.console) as progress:
            task = progress.add_task("", total=steps, completed=done, figures="compiling")

            def show(step: int, values: dict[str, float] | None) -> None:
                if values:
                    progress.update(task, figures=text_of(values))
                progress.update(task, completed=step)

            yield show

    def _lines(
        self, steps: int, done: int, text_of: Callable[[dict[str, float]], str]
    ) -> Callable[[int, dict[str, float] | None], None]:
        begin = last = time.monotonic()

        def show(step: int, values: dict[str, float] | None) -> None:
            nonlocal last
            now = time.monotonic()
            if values and (now - last >= LINE_SECONDS or step == steps):
                last = now
                left = (now - begin) / max(step - done, 1) * (steps - step)
                self.say(f"step {step}/{steps}  {text_of(values)}  {left / 60:.1f} min left")

        return show

    def summary(
        self, summary: dict[str, Any], sentences: Sequence[str], fillings: Sequence[Sequence[Sequence[Filling]]]
    ) -> None:
        """The held-out figures beside their baselines, and a few filled sentences."""
        table = Table(title="On held-out text")
        for column in ("", "loss", "accuracy"):
            table.add_column(column, justify="left" if not column else "right")
        for title, kind in ROWS:
            if f"{kind}_loss" in summary:
                accuracy = summary.get(f"{kind}_accuracy")
                table.add_row(title, f"{summary[f'{kind}_loss']:.3f}", "" if accuracy is None else f"{accuracy:.3f}")
        self.console.print(table)
        for sentence, blanks in zip(sentences, fillings, strict=True):
            self.say(filled_text(sentence, blanks))


ROWS = (
    ("masked pieces", "mlm"),
    ("baseline: the pair of pieces (bigram)", "bigram"),
    ("baseline: the commonest piece (unigram)", "unigram"),
    ("baseline: every piece alike (ln V)", "uniform"),
    ("second sentence: next or not", "nsp"),
)


def figures_text(values: dict[str, float]) -> str:
    """`MLM 4.51 (24 %)  NSP 0.61 (66 %)  21,034 tokens/s`: loss and accuracy of each."""
    parts = [
        f"{kind.upper()} {values[f'{kind}_loss']:.3f} ({values[f'{kind}_accuracy']:.1%})"
        for kind in ("mlm", "nsp")
        if f"{kind}_loss" in values
    ]
    return "  ".join([*parts, f"{values['tokens_per_second']:,.0f} tokens/s"])


def filled_text(sentence: str, blanks: Sequence[Sequence[Filling]]) -> str:
    """The sentence, and the likeliest pieces for each blank with their probabilities."""
    choices = (", ".join(f"{filling.token} {filling.probability:.0%}" for filling in blank) for blank in blanks)
    return f"{sentence}  ->  {' | '.join(choices)}"
