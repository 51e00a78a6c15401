"""What the full parity runs found, kept for the book."""

import json
import os
from pathlib import Path

from bertkeras.files import write_text

FULL = os.environ.get("BERTKERAS_PARITY_FULL") == "1"
RESULTS = Path(__file__).parents[2] / "book" / "results" / "parity.json"


def record(section, value):
    """Set one section of the results; the others stay. A run that is not full records nothing."""
    if FULL:
        sections = json.loads(RESULTS.read_text(encoding="utf-8")) if RESULTS.exists() else {}
        write_text(RESULTS, json.dumps({**sections, section: value}, indent=2, sort_keys=True) + "\n")
