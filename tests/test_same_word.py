"""The page "The same word elsewhere": what it says to write gives the other library's result, what it warns of not."""

import importlib.util
import inspect
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from words_elsewhere.page import PAGE, SECTIONS, page
from words_elsewhere.row import LIBRARIES, WEIGHTS
from words_elsewhere.run_here import kind, network, run_here, taken_over
from words_elsewhere.run_there import PACKAGES, PROGRAMS, import_keras, programs

import fcnn

ROWS = [row for section in SECTIONS for row in section.rows]
DRAWN = ("kernel", "bias", "dropout")
COMPUTED = [row for row in ROWS if row.mode not in DRAWN]
MISTAKEN = [row for row in COMPUTED if row.unlike or row.weights_unlike]
#: how far apart results are that are not the same, relative to the largest value; hundreds of times the rounding
APART = 1e-6


def need(library):
    package = PACKAGES[library]
    if importlib.util.find_spec(package) is None:
        version = LIBRARIES[library.partition(" ")[0]]
        pytest.skip(f"{library} is not installed: pip install {package}=={version}")
    if library == "ONNX":
        pytest.importorskip("onnxruntime", reason="files are run by onnxruntime: pip install 'fcnn[dev]'")


def cases(rows):
    return [
        pytest.param(row, library, program, id=f"{row.id}-{program}")
        for row in rows
        for library, code in row.there.items()
        for program in programs(library, code)
    ]


def drawn(row):
    x = np.random.default_rng(0).normal(size=row.shape)
    return np.abs(x) if row.positive else x


def apart(a, b):
    """The largest difference relative to the largest value of b; infinite where shapes differ or one alone is NaN."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape or not np.array_equal(np.isnan(a), np.isnan(b)):
        return np.inf
    return np.nanmax(np.abs(a - b)) / np.nanmax(np.abs(b))


def farthest(found, wanted):
    """The same for an output and statistics by name."""
    (y, state), (their_y, their_state) = found, wanted
    if set(state) != set(their_state):
        return np.inf
    return max(apart(y, their_y), *(apart(state[name], their_state[name]) for name in state), 0)


def theirs_as_ours(row, library, result):
    """Their output and new statistics, by our names."""
    if row.mode != "train":
        return result.y, {}
    return result.y, taken_over(row, library, network(row.here), {**result.arrays, **result.after})[1]


@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("row", "library", "program"), cases(COMPUTED))
def test_what_is_written_here_gives_their_result(row, library, program):
    need(program)
    x = drawn(row)
    for result in PROGRAMS[program](row.there[library], x, row.mode):
        ours = run_here(row, row.here, x, library, result)
        assert farthest(ours, theirs_as_ours(row, library, result)) <= result.tolerance


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.parametrize(("row", "library", "program"), cases(MISTAKEN))
def test_what_is_not_the_same_gives_another_result(row, library, program):
    need(program)
    x = drawn(row)
    for result in PROGRAMS[program](row.there[library], x, row.mode):
        theirs = theirs_as_ours(row, library, result)
        for code in row.unlike:
            assert farthest(run_here(row, code, x, library, result), theirs) > APART, code
        if library in row.weights_unlike:
            assert farthest(run_here(row, row.here, x, library, result, unlike=True), theirs) > APART


def spread(values):
    """What tells distributions of initial values apart: mean, standard deviation, fourth moment."""
    values = np.asarray(values, np.float64).ravel()
    return np.array([values.mean() / values.std(), np.log(values.std()), (values**4).mean() / values.std() ** 4])


def share_dropped(y):
    """The share of zeros, the largest value, and the shares of channels and examples that are wholly zero."""
    y = np.asarray(y)
    gone, flat = (y == 0), (y == 0).reshape(y.shape[0], -1)
    return np.array([gone.mean(), np.abs(y).max(), gone.all((1, 2)).mean(), flat.all(1).mean()])


def drawn_there(row, library, program):
    (result,) = PROGRAMS[program](row.there[library], np.ones(row.shape), row.mode)
    if row.mode == "dropout":
        return share_dropped(result.y)
    rule = WEIGHTS[library][kind(network(row.here))][row.mode]
    return spread(eval(rule, dict(result.arrays)))


def drawn_here(row, code):
    net = network(code)
    if row.mode == "dropout":
        y, _ = net.apply_train({}, jnp.ones(row.shape), key=jax.random.key(0))
        return share_dropped(y)
    return spread(net.init(jax.random.key(0), row.shape[1:])[row.mode])


#: so well do shares, logarithms of standard deviations and fourth moments over ten thousands of values agree
DRAWS_AGREE = 0.1


@pytest.mark.slow
@pytest.mark.usefixtures("x64")
@pytest.mark.filterwarnings("ignore:divide by zero", "ignore:invalid value")  # a bias of zeros
@pytest.mark.parametrize(("row", "library", "program"), cases([row for row in ROWS if row.mode in DRAWN]))
def test_what_is_written_here_draws_from_their_distribution(row, library, program):
    need(program)
    theirs = drawn_there(row, library, program)
    np.testing.assert_allclose(drawn_here(row, row.here), theirs, rtol=0, atol=DRAWS_AGREE)
    for code in row.unlike:
        assert not np.allclose(drawn_here(row, code), theirs, rtol=0, atol=DRAWS_AGREE), code


def test_a_result_that_is_another_is_seen():
    x = np.arange(6.0).reshape(2, 3)
    assert apart(x, x) == 0
    assert apart(x + 1e-3, x) > APART
    assert apart(x.T, x) == apart(np.where(x > 4, np.nan, x), x) == np.inf
    assert farthest((x, {"mean": x}), (x, {"mean": x + 1})) > APART
    assert farthest((x, {}), (x, {"mean": x})) == np.inf


def signature(library, name):
    """Arguments of an operation of a library, with their defaults."""
    if library == "ONNX":
        onnx = pytest.importorskip("onnx")
        schema = onnx.defs.get_schema(name)
        attributes = {key: a.default_value for key, a in schema.attributes.items()}
        names = [*attributes, *(place.name for place in schema.inputs)]
        found = {key: onnx.helper.get_attribute_value(value) for key, value in attributes.items() if value.name}
        return dict.fromkeys(names, inspect.Parameter.empty) | found
    module = {
        "PyTorch": lambda: importlib.import_module("torch.nn"),
        "Keras": lambda: import_keras().layers,
        "Flax": lambda: importlib.import_module("flax.linen"),
        "fcnn": lambda: fcnn,
    }[library]()
    value = getattr(module, name)
    parameters = inspect.signature(value.__init__ if library == "Keras" else value).parameters
    return {key: parameter.default for key, parameter in parameters.items()}


OPERATIONS = [
    pytest.param(library, place, operation, id=f"{operation.names[-1]}-{library}")
    for section in SECTIONS
    for operation in section.signatures
    for place, library in enumerate([*LIBRARIES, "fcnn"])
    if operation.names[place]
]


@pytest.mark.parametrize(("library", "place", "operation"), OPERATIONS)
def test_arguments_have_these_names_and_defaults(library, place, operation):
    if library != "fcnn":
        need(library)
    known = signature(library, operation.names[place])
    for argument in operation.arguments:
        name, _, default = argument.names[place].partition("=")
        if not name:
            continue
        assert name in known
        if not default:
            assert known[name] is inspect.Parameter.empty or (library, name) in {("Flax", "padding")}
        elif isinstance(known[name], float):
            assert eval(default) == pytest.approx(known[name], rel=1e-6)
        else:
            assert eval(default) == known[name]


def test_the_page_is_made_of_the_rows():
    stored = (Path(__file__).parents[1] / PAGE).read_text()
    assert stored == page(), "write it again: PYTHONPATH=tests python -m words_elsewhere"


def test_rows_are_whole():
    names = [row.id for row in ROWS]
    assert len(set(names)) == len(names)
    for row in ROWS:
        assert set(row.there) <= set(LIBRARIES)
        assert set(row.weights) | set(row.weights_unlike) <= set(row.there), row.id
        assert row.here not in row.unlike
