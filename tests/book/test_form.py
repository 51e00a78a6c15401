"""Every chapter keeps to the form that a reader relies on."""

import ast
import json
import re

import pytest

pytest.importorskip("nbformat")
pytest.importorskip("yaml")

from tests.book.notebooks import BOOK, chapters, code, notebooks, pages, prose, read, tagged

KEPT_METADATA = {"tags", "mystnb", "cellView"}
IMAGES = ("image/png", "image/svg+xml", "image/jpeg")


def outputs(name):
    return [(cell, output) for cell in code(name) for output in cell.outputs]


def test_every_notebook_is_in_the_table_of_contents():
    assert {path.stem for path in BOOK.glob("*.ipynb")} == set(notebooks())
    assert chapters()


@pytest.mark.parametrize("page", pages())
def test_every_page_exists(page):
    assert [path for path in BOOK.glob(f"{page}.*") if path.suffix in (".ipynb", ".md")]


@pytest.mark.parametrize("tag", ["install", "furniture"])
def test_shared_cells_are_the_same_everywhere(tag):
    sources = {tuple(cell.source for cell in tagged(name, tag)) for name in chapters()}
    assert len(sources) == 1
    assert len(sources.pop()) == 1


@pytest.mark.parametrize("name", chapters())
def test_the_first_code_installs_and_chooses_the_backend(name):
    first, *others = code(name)
    assert "install" in first.metadata.tags
    assert 'find_spec("bertkeras") is None' in first.source
    assert '%pip install -q "bertkeras[tensorflow]"' in first.source
    assert '"KERAS_BACKEND"' in first.source
    assert not re.search(r"^\s*(?:import|from) (?:keras|tensorflow|bertkeras)", first.source, re.MULTILINE)
    assert not any("pip install" in cell.source for cell in others)


@pytest.mark.parametrize("name", chapters())
def test_a_chapter_opens_with_goals_needs_and_time(name):
    opening = read(name).cells[0].source
    assert opening.startswith("# ")
    goals = re.search(r"\*\*What you will be able to do\*\*\n\n((?:- .+\n(?:  .+\n)*)+)", opening)
    assert goals
    assert goals[1].count("- ") >= 3
    assert "**What you need:**" in opening
    assert "**Time:** {glue:text}`chapter_time`" in opening


@pytest.mark.parametrize("name", chapters())
def test_the_time_line_is_what_was_measured(name):
    measured = json.loads((BOOK / "results" / "timings.json").read_text(encoding="utf-8"))[name]
    assert measured["seconds"] < 90
    (cell,) = tagged(name, "timing")
    (output,) = cell.outputs
    (line,) = output.data.values()
    assert line.startswith(f"'{measured['seconds']:.0f} s at {measured['scale']} scale")
    assert measured["hardware"] in line


@pytest.mark.parametrize("name", notebooks())
def test_every_glued_name_is_given_by_a_cell(name):
    extra = [output.get("metadata", {}) for _, output in outputs(name)]
    given = {metadata["scrapbook"]["name"] for metadata in extra if "scrapbook" in metadata}
    used = set(re.findall(r"\{glue:text\}`([^`:]+)", prose(name)))
    assert used == given


@pytest.mark.parametrize("name", notebooks())
def test_every_image_has_alt_text(name):
    for cell, output in outputs(name):
        if any(kind in output.get("data", {}) for kind in IMAGES):
            assert len(cell.metadata["mystnb"]["image"]["alt"]) >= 40, cell.id


@pytest.mark.parametrize("name", chapters())
def test_the_quiz_explains_every_choice(name):
    (cell,) = tagged(name, "quiz")
    assignment, call = ast.parse(cell.source).body
    questions = ast.literal_eval(assignment.value)
    assert ast.unparse(call) == "quiz(QUESTIONS)"
    assert len(questions) >= 3
    for question in questions:
        assert question.keys() == {"question", "choices"}
        assert len(question["choices"]) >= 3
        assert sum(choice["correct"] for choice in question["choices"]) == 1
        for choice in question["choices"]:
            assert choice.keys() == {"answer", "correct", "explanation"}
            assert isinstance(choice["correct"], bool)
            assert choice["answer"].strip()
            assert len(choice["explanation"]) >= 20
    (output,) = cell.outputs
    choices = sum(len(question["choices"]) for question in questions)
    assert output.data["text/html"].count("<details") == choices


@pytest.mark.parametrize("name", chapters())
def test_exercises_have_solutions_that_ran(name):
    exercises = re.findall(r"^\*\*Exercise (\d+)\.\*\*", prose(name), re.MULTILINE)
    assert len(exercises) >= 3
    assert exercises == [str(number + 1) for number in range(len(exercises))]
    solutions = tagged(name, "solution")
    assert len(solutions) == len(exercises)
    for number, cell in enumerate(solutions, start=1):
        assert cell.source.startswith(f"# @title Solution {number}\n")
        assert "hide-cell" in cell.metadata.tags
        assert cell.metadata.cellView == "form"
        assert cell.execution_count
        assert cell.outputs
        assert "assert " in cell.source, "a solution checks itself"


@pytest.mark.parametrize("page", pages())
def test_links_inside_the_book_lead_somewhere(page):
    path = BOOK / f"{page}.md"
    text = path.read_text(encoding="utf-8") if path.is_file() else prose(page)
    for target in re.findall(r"\{doc\}`(?:[^`<]*<)?([^`>]+)>?`", text):
        assert target in pages(), target
    for target in re.findall(r"\]\(([^)#\s]+)", text):
        assert target.startswith("https://") or (BOOK / target).is_file(), target
    entries = set(re.findall(r"^@\w+\{([^,]+),", (BOOK / "references.bib").read_text(encoding="utf-8"), re.MULTILINE))
    for keys in re.findall(r"\{cite(?::\w+)?\}`([^`]+)`", text):
        assert {key.strip() for key in keys.split(",")} <= entries


@pytest.mark.parametrize("name", notebooks())
def test_outputs_are_stored_and_clean(name):
    assert [cell.execution_count for cell in code(name)] == list(range(1, len(code(name)) + 1))
    for cell, output in outputs(name):
        assert output.output_type != "error", cell.id
        assert output.get("name") != "stderr", cell.id
        shown = json.dumps({key: value for key, value in output.items() if key != "metadata"})
        assert "Traceback" not in shown
        assert not re.search(r"(?<![\w.:/])/(?:home|root|tmp|work|Users|usr|opt|content)/", shown), cell.id
    for cell in tagged(name, "nbval-check-output"):
        assert [output.output_type for output in cell.outputs] == ["stream"], cell.id


@pytest.mark.parametrize("name", notebooks())
def test_metadata_is_stripped(name):
    notebook = read(name)
    assert notebook.metadata.keys() == {"kernelspec", "language_info"}
    assert notebook.metadata.language_info == {"name": "python"}
    identifiers = [cell.id for cell in notebook.cells]
    assert len(set(identifiers)) == len(identifiers)
    for cell in notebook.cells:
        assert cell.metadata.keys() <= KEPT_METADATA, cell.id
        assert re.fullmatch(r"[a-z0-9-]+", cell.id), "an id that says what the cell is stays stable"


@pytest.mark.parametrize("name", notebooks())
def test_a_cell_that_the_book_skips_is_skipped_by_the_tests(name):
    for cell in tagged(name, "skip-execution"):
        assert "nbval-skip" in cell.metadata.tags
