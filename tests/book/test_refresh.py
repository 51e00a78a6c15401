"""What `book/refresh.py` stores is clean, and what must not be stored is refused."""

import importlib.util

import pytest

pytest.importorskip("nbclient")
pytest.importorskip("yaml")

from nbformat import v4

from tests.book.notebooks import BOOK


@pytest.fixture
def refresh():
    spec = importlib.util.spec_from_file_location("book_refresh", BOOK / "refresh.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stream(text, name="stdout"):
    return v4.new_output("stream", name=name, text=text)


def notebook(*outputs):
    cell = v4.new_code_cell("1", id="one", execution_count=7, outputs=list(outputs))
    cell.metadata = {"tags": ["solution"], "execution": {"iopub.execute_input": "now"}, "collapsed": True}
    return v4.new_notebook(cells=[v4.new_markdown_cell("# Title", id="title"), cell], metadata={"widgets": {}})


def test_noise_is_taken_away(refresh):
    result = v4.new_output("execute_result", data={"text/plain": "1"}, execution_count=7)
    book = notebook(stream("a\n"), stream("b\n"), result)
    refresh.clean(book)
    cell = book.cells[1]
    assert book.metadata.keys() == {"kernelspec", "language_info"}
    assert cell.metadata == {"tags": ["solution"]}
    assert cell.execution_count == cell.outputs[1].execution_count == 1
    assert [output.output_type for output in cell.outputs] == ["stream", "execute_result"]
    assert cell.outputs[0].text == "a\nb\n"
    assert cell.id == "one"


def test_the_log_of_tensorflow_goes_and_a_warning_stays(refresh):
    log = (
        "WARNING: All log messages before absl::InitializeLog() is called\nI0000 00:00:1.2 port.cc:153] oneDNN is on.\n"
    )
    book = notebook(stream(log, "stderr"))
    refresh.clean(book)
    assert book.cells[1].outputs == []
    assert refresh.fault(book) is None
    book = notebook(stream(log + "UserWarning: look here\n", "stderr"))
    refresh.clean(book)
    assert "UserWarning: look here" in refresh.fault(book)


@pytest.mark.parametrize("text", ["see {root}/book", "Traceback (most recent call last)", "<object at 0x7f00deadbeef>"])
def test_what_must_not_be_stored(refresh, text):
    assert refresh.fault(notebook(stream("fine\n"))) is None
    assert "one" in refresh.fault(notebook(stream(text.format(root=refresh.ROOT))))


def test_an_error_must_not_be_stored(refresh):
    error = v4.new_output("error", ename="ValueError", evalue="no", traceback=[])
    assert "ValueError" in refresh.fault(notebook(error))


def test_hardware_names_cores_and_gpu(refresh):
    assert "CPU cores (" in refresh.hardware()
    assert "GPU" in refresh.hardware()


def test_the_status_page_comes_last(refresh):
    assert refresh.notebooks()[-1] == "status"
