"""Every notebook runs whole and without errors, is kept with its outputs, and shows the results that are known."""

import os
import re
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="notebooks are read with nbformat: pip install 'fcnn[dev]'")
nbclient = pytest.importorskip("nbclient", reason="notebooks are run with nbclient: pip install 'fcnn[dev]'")
pytest.importorskip("ipykernel", reason="notebooks are run in ipykernel: pip install 'fcnn[dev]'")
pytest.importorskip("matplotlib", reason="notebooks draw: pip install 'fcnn[pictures]'")
pytest.importorskip("sklearn", reason="notebooks read the digits: pip install 'fcnn[data]'")

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))
LONGEST_CELL = 12  # lines of code
LARGEST_FILE = 500_000  # bytes
SECONDS_PER_CELL = 600  # after which a cell counts as hung

each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


def kinds(cell):
    """What a cell put out: the names of streams and the MIME types of pictures and tables, in order."""
    found = []
    for output in cell.outputs:
        kind = {"stream": output.get("name"), "error": "error"}.get(output.output_type)
        kind = kind or tuple(sorted(output.data))
        if found[-1:] != [kind]:  # one stream may arrive in several pieces
            found.append(kind)
    return found


def faults_of(notebook):
    """What is wrong with a notebook as it is stored, in words."""
    found = []
    if set(notebook.metadata) - {"kernelspec", "language_info"}:
        found.append(f"metadata of an editor: {sorted(notebook.metadata)}")
    if notebook.metadata.get("kernelspec", {}).get("name") != "python3":
        found.append("another kernel than python3")
    for number, cell in enumerate(code_cells(notebook), start=1):
        lines = len(cell.source.splitlines())
        if lines > LONGEST_CELL:
            found.append(f"[{number}] has {lines} lines of code, {LONGEST_CELL} are allowed")
        if cell.execution_count != number:
            found.append(f"[{number}] was run as number {cell.execution_count}")
        # a cell of definitions may print only when they are called; a run, below, tells those that do print
        if re.search(r"\bprint\(|\bplt\.subplots\(", cell.source) and not re.search(r"^def ", cell.source, re.M):
            found += [] if cell.outputs else [f"[{number}] is kept without its outputs"]
        if {"stderr", "error"} & set(kinds(cell)):
            found.append(f"[{number}] put out a warning or an error")
        if re.search(r"/home/|/root/|/tmp/|/Users/|\bat 0x[0-9a-f]+", text_of(cell)):
            found.append(f"[{number}] shows a path or an address of one machine")
    return found


def text_of(cell):
    """All that a cell put out as text."""
    pieces = []
    for output in cell.outputs:
        pieces += [
            output.get("text", ""),
            *(output.get("data", {}).get(kind, "") for kind in ("text/plain", "text/html")),
        ]
    return "\n".join(pieces)


def read(path):
    return nbformat.read(path, as_version=4)


def run(notebook, folder):
    """Execute all cells in an empty folder; a cell that fails raises CellExecutionError, with its traceback."""
    resources = {"metadata": {"path": str(folder)}}
    nbclient.NotebookClient(notebook, timeout=SECONDS_PER_CELL, kernel_name="python3", resources=resources).execute()


@pytest.fixture(autouse=True)
def _no_settings_of_the_user(tmp_path_factory, monkeypatch):
    for name in ("IPYTHONDIR", "JUPYTER_CONFIG_DIR", "JUPYTER_DATA_DIR", "JUPYTER_RUNTIME_DIR"):
        monkeypatch.setenv(name, str(tmp_path_factory.mktemp(name.lower())))
    monkeypatch.delenv("MPLBACKEND", raising=False)  # pictures go into the notebook


def test_there_are_notebooks():
    assert NOTEBOOKS, f"no notebooks in {FOLDER}"


@each_notebook
def test_a_notebook_is_valid_small_clean_and_kept_with_its_outputs(path):
    notebook = read(path)
    nbformat.validate(notebook)
    assert path.stat().st_size <= LARGEST_FILE
    assert faults_of(notebook) == []


#: folders of FCNN_DATA without which a notebook would download something
READS = {"05_find_it_anywhere": "fsdd"}


@each_notebook
def test_a_notebook_runs_whole_and_puts_out_what_is_stored(path, tmp_path):
    if path.stem in READS and not (Path(os.environ.get("FCNN_DATA", "")) / READS[path.stem]).is_dir():
        pytest.skip(f"reads real recordings: FCNN_DATA names no folder with {READS[path.stem]}")
    stored, notebook = read(path), read(path)
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    run(notebook, tmp_path)
    for number, (was, now) in enumerate(zip(code_cells(stored), code_cells(notebook), strict=True), start=1):
        # a machine may have warnings of its own; what is printed or drawn may differ only in its digits
        assert [kind for kind in kinds(now) if kind != "stderr"] == kinds(was), f"[{number}]\n{was.source}"


#: what the stored outputs of a notebook must say, worked out by hand
KNOWN = {
    "02_backprop_by_hand": [
        "output 0.73",
        "w0  value  2.0  gradient -0.2",
        "x0  value -1.0  gradient  0.4",
        "w1  value -3.0  gradient -0.4",
        "x1  value -2.0  gradient -0.6",
        "w2  value -3.0  gradient  0.2",
        "output [1.3 2.1]",
        "kernel gradient [0.3 0.4]",
        "bias gradient   0.1",
        "input gradient  [-0.03  0.01  0.1 ]",
        "dk[0] += g[0] * x[0] = -0.1",
        "dk[1] += g[0] * x[1] = -0.2",
        "dk[0] += g[1] * x[1] =  0.4",
        "dk[1] += g[1] * x[2] =  0.6",
        "kernel [0.3 0.4]  bias [0.1]  input [-0.03  0.01  0.1 ]",
        "324 unshared weights, 324 shares; 9 shared weights",
        "all gradients agree",
        "WRONG",
    ],
    "01_scanning_is_convolution": [
        "(31, 4) largest difference 0.0",
        "the same at all 120 positions",
        "multiply-adds by patches  53,568",
        "matrices (192, 8) (8, 16) (16, 4)",
        "recognised: fcnn.serial(fcnn.Conv(2, 2, stride=2)",
        "1 of 1,715 shares are not zero",
    ],
    "06_the_same_word_elsewhere": [
        "centres [0, 2, 4, 6]",
        "centres [1, 3, 5, 7]",
        "Keras   [  1.   2.  13.  20. 130. 200.]",
        "PyTorch [  2.  13.  20. 130. 200. 300.]",
        "reversed  [  3.   2.  31.  20. 310. 200.]  largest difference 0.0e+00",
        "[[0.44 0.67 0.67]",  # 4 / 9 and 6 / 9
        "unbiased=True   variance 2.0",
        "unbiased=False  variance 1.0",
        "PyTorch  s.d. 0.0240, by the formula 0.0241",
    ],
    "03_train_a_network": [
        "6,138 parameters",  # 144 + 32 + 4,608 + 64 + 1,290
        "('params', 'state', 'optimizer_state', 'key', 'step')",
        "8 epochs; stopped by the callback after_eight",
        "20 epochs; the same parameters as in one go: True",
        "the first is the output of log1",
        "(5, 3, 3, 1, 16)",
    ],
}


@pytest.mark.parametrize("name", KNOWN)
def test_the_stored_outputs_show_the_known_results(name):
    text = "\n".join(text_of(cell) for cell in code_cells(read(FOLDER / f"{name}.ipynb")))
    for line in KNOWN[name]:
        assert line in text, line


def spoilt(change):
    """A sound notebook of one cell with something changed."""
    spec = {"name": "python3", "display_name": "Python 3"}
    output = nbformat.v4.new_output("stream", name="stdout", text="1\n")
    cell = nbformat.v4.new_code_cell("print(1)", execution_count=1, outputs=[output])
    notebook = nbformat.v4.new_notebook(cells=[cell], metadata={"kernelspec": spec})
    change(notebook, cell)
    return notebook


FAULTS = {
    "editor": lambda notebook, cell: notebook.metadata.update(colab={}),
    "another kernel": lambda notebook, cell: notebook.metadata.kernelspec.update(name="julia"),
    "14 lines": lambda notebook, cell: cell.update(source="print(1)\n" * 14),
    "run as number 3": lambda notebook, cell: cell.update(execution_count=3),
    "without its outputs": lambda notebook, cell: cell.update(outputs=[]),
    "a warning": lambda notebook, cell: cell.outputs[0].update(name="stderr"),
    "of one machine": lambda notebook, cell: cell.outputs[0].update(text="<f at 0x7f6b6fb2c790>"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_a_fault_of_a_stored_notebook_is_found(fault):
    assert faults_of(spoilt(lambda notebook, cell: None)) == []
    (found,) = faults_of(spoilt(FAULTS[fault]))
    assert fault in found


def test_a_notebook_that_raises_fails(tmp_path):
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("1 / 0")])
    with pytest.raises(nbclient.exceptions.CellExecutionError, match="ZeroDivisionError"):
        run(notebook, tmp_path)
