"""Every tool on every kind of layer: supported and right, or refused in the one sentence of the fact behind it.

Each tool is held against something that knows nothing of it: windows cut out, samples that are made NaN, sums of
``jax.grad``, products counted in JAX's program. A tool or a layer without an entry here fails.
"""

import functools
import itertools
import re
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import Literal
from refusals import SENTENCES, fact
from subjects import SUBJECTS
from trace_interpreter import lookup
from trace_interpreter import run as run_trace

import fcnn
from fcnn import analysis, scan
from fcnn.analysis import gradient_by_use
from fcnn.jaxprs import parts_of_scan
from fcnn.tracing.read import BATCH
from fcnn.tracing.structure import structure


@functools.cache
def made(name):
    """A subject with params, state and inputs that hold no zeros and no ones, and what it makes of them."""
    case = SUBJECTS[name]
    numbers = np.random.default_rng(len(name))
    params, state = structure(case.net, case.shapes)

    def draw(leaf, low, high):
        if not jnp.issubdtype(leaf.dtype, jnp.floating):
            return np.zeros(leaf.shape, leaf.dtype)
        return numbers.uniform(low, high, leaf.shape).astype(leaf.dtype)

    params = jax.tree.map(lambda leaf: draw(leaf, -1, 1), params)
    state = jax.tree.map(lambda leaf: draw(leaf, 0.5, 1.5), state)
    inputs = tuple(numbers.uniform(-1, 1, (BATCH, *shape)).astype("float32") for shape in case.shapes)
    return SimpleNamespace(net=case.net, shapes=case.shapes, params=params, state=state, inputs=inputs)


@functools.cache
def outputs_of(name):
    it = made(name)
    return jax.jit(it.net.apply)(it.params, *it.inputs, state=it.state)


def same(found, expected, tolerance=1e-4):
    found, expected = np.asarray(found, np.float64), np.asarray(expected, np.float64)
    assert found.shape == expected.shape
    scale = max(1.0, np.abs(expected).max(initial=0))
    np.testing.assert_allclose(found, expected, rtol=0, atol=tolerance * scale)


# The tools. Each function uses one on a subject and compares what it says with a truth of its own.


@functools.cache
def values(name):
    """Every value of the network, by its number in the trace: computed node by node."""
    it = made(name)
    trace = fcnn.trace(it.net, *it.shapes)
    found = dict(trace.constants)
    found.update({number: lookup(it.params, path) for number, path in trace.params})
    found.update({number: lookup(it.state, path) for number, path in trace.state})
    found.update(zip(trace.inputs, it.inputs, strict=True))
    run_trace(trace, found)
    return trace, found


def check_trace(name):
    trace, found = values(name)
    outputs = jax.tree.leaves(outputs_of(name))
    assert len(trace.outputs) == len(outputs)
    for number, y in zip(trace.outputs, outputs, strict=True):
        same(found[number], y)
        assert trace.shapes[number] == y.shape[1:]


def check_capture(name):
    it, (trace, found) = made(name), values(name)
    kept = jax.jit(lambda *given: fcnn.capture(it.net, *given[:-1], state=given[-1]))(it.params, *it.inputs, it.state)
    seen = 0
    for node in trace:
        # a scan that is the whole network is, like other compositions, shown by its parts
        if node.layer is not None and len(node.outputs) == 1 and (node.path or not node.positions):
            same(kept[node.path or it.net.label], found[node.outputs[0]])
            seen += 1
    assert seen or any(node.primitive == "scan" or node.positions for node in trace)


def check_observe(name):
    """What an observer replaces goes on through the network; what it keeps is what it saw."""
    it, (trace, found) = made(name), values(name)
    first = next((node for node in trace if node.layer is not None and node.path and len(node.outputs) == 1), None)
    path = first.path if first else ""
    negated = dict(found)

    def observer(seen):
        return analysis.Observed(seen.inputs, -seen.output) if seen.path == path else None

    seen = jax.jit(lambda *given: analysis.observe(it.net, *given[:-1], observer=observer, state=given[-1])[:2])
    outputs, kept = seen(it.params, *it.inputs, it.state)
    if not trace.nodes or first is None:  # a network of one layer, or a loop of copies
        whole = [node for node in trace if node.layer is not None and not node.positions]
        if len(whole) == 1:
            same(jax.tree.leaves(outputs)[0], -np.asarray(jax.tree.leaves(outputs_of(name))[0]))
        return
    for number, x in zip(first.inputs, kept[path], strict=True):
        same(x, found[number])
    negated[first.outputs[0]] = -found[first.outputs[0]]
    rest = SimpleNamespace(nodes=trace.nodes[trace.nodes.index(first) + 1 :])
    run_trace(rest, negated)
    for number, y in zip(trace.outputs, jax.tree.leaves(outputs), strict=True):
        same(y, negated[number])


def check_summary(name):
    it = made(name)
    table = fcnn.summary(it.net, *it.shapes)
    assert table.parameters == sum(leaf.size for leaf in jax.tree.leaves(it.params))
    assert sum(row.parameters for row in table.rows) == table.parameters
    trace, found = values(name)
    shapes = {node.path or it.net.label: found[node.outputs[0]].shape[1:] for node in trace if node.layer is not None}
    for row in table.rows:
        if row.path in shapes and not row.copies:
            assert row.output == shapes[row.path] or isinstance(row.output, dict | list)


def check_multiply_adds(name):
    it = made(name)
    one = [jax.ShapeDtypeStruct((1, *shape), jnp.float32) for shape in it.shapes]
    program = jax.make_jaxpr(lambda *given: it.net.apply(*given[:-1], state=given[-1]))(it.params, *one, it.state)
    depends = [*["params"] * len(jax.tree.leaves(it.params)), *["data"] * len(one)]
    depends += ["params"] * len(jax.tree.leaves(it.state))
    assert analysis.multiply_adds(it.net, *it.shapes) == products(program.jaxpr, depends)[0]


def products(jaxpr, depends):
    """Products of weights and data in a program, and what its results depend on: "params", "data" or neither."""
    known, total = dict(zip(jaxpr.invars, depends, strict=True)), 0
    for equation in jaxpr.eqns:
        given = ["" if isinstance(atom, Literal) else known.get(atom, "") for atom in equation.invars]
        name, p = equation.primitive.name, equation.params
        out = np.prod(equation.outvars[0].aval.shape) if equation.outvars else 0
        made = ["data" if "data" in given else "params" if "params" in given else ""] * len(equation.outvars)
        inner = [q for v in p.values() for q in (v if isinstance(v, tuple) else (v,))]
        inner = [getattr(q, "jaxpr", q) for q in inner if hasattr(getattr(q, "jaxpr", q), "eqns")]
        shapes = [atom.aval.shape for atom in equation.invars]
        if set(given[:2]) == {"params", "data"} and name == "dot_general":
            total += out * np.prod([shapes[0][axis] for axis in p["dimension_numbers"][0][0]])
        elif set(given[:2]) == {"params", "data"} and name in ("conv_general_dilated", "fcnn_convolution_forward"):
            spread = p["lhs_dilation"] if "lhs_dilation" in p else p["geometry"].input_dilation
            features = p["dimension_numbers"].rhs_spec[0] if "lhs_dilation" in p else -1
            positions = out // shapes[1][features]
            if max(spread) > 1:  # an input between others is a zero; every other one is laid out over a kernel
                positions = np.prod(shapes[0]) // (shapes[0][-1])
            total += positions * np.prod(shapes[1])
        elif name == "scan":
            own, made = products(inner[0], given)
            count = parts_of_scan(p)[1]
            if made[:count] != given[parts_of_scan(p)[0] :][:count]:
                given = [*given[: parts_of_scan(p)[0]], *made[:count], *given[sum(parts_of_scan(p)) :]]
                own, made = products(inner[0], given)
            total += p["length"] * own
        elif len(inner) == 1 and len(inner[0].invars) == len(given):
            own, made = products(inner[0], given)
            total += own
        else:
            assert all(products(program, ["data"] * len(program.invars))[0] == 0 for program in inner), name
        known.update(zip(equation.outvars, made, strict=True))
    return int(total), ["" if isinstance(atom, Literal) else known.get(atom, "") for atom in jaxpr.outvars]


def check_receptive_field(name):
    """Outputs that see a sample are NaN where it is."""
    seen, it = analysis.receptive_field(made(name).net, made(name).shapes[0]), made(name)
    space = it.shapes[0][:-1]
    places = np.eye(int(np.prod(space)), dtype=bool).reshape(-1, *space)
    x = np.where(places[..., None], np.nan, it.inputs[0][:1]).astype("float32")
    y = np.asarray(jax.jit(it.net.apply)(it.params, x, state=it.state))
    changed = np.isnan(y.reshape(*y.shape[: 1 + len(space)], -1)).any(-1)
    mirrored = any(mode in repr(it.net) for mode in ("REFLECT", "EDGE"))
    for axis, size in enumerate(space):
        others = tuple(a for a in range(1, 1 + len(space)) if a != 1 + axis)
        place = places.any(others).argmax(-1)
        for i, row in enumerate(changed.any(others).T):
            first = seen.first[axis] + seen.step[axis] * i
            last = first + seen.size[axis] - 1
            within = first >= 0 and last < size
            found = (place[row].min(), place[row].max()) if row.any() else None
            if found is not None and (within or not mirrored):
                assert first <= found[0] <= found[1] <= last
            # a scan sees its window, also what the network for it makes nothing of; what is cut off, or left out by
            # resizing, belongs to the fields at the border, and so to all
            whole = not mirrored and not re.search(r"(Scan|Crop|Resize)\(", repr(it.net))
            if within and whole and seen.step[axis] >= 1 and seen.period[axis] == seen.step[axis]:
                assert found == (first, last)


def larger(name, by):
    """An input that is larger by so many samples along every axis."""
    shape = made(name).shapes[0]
    numbers = np.random.default_rng(1)
    return numbers.uniform(-1, 1, (2, *(n + by for n in shape[:-1]), shape[-1])).astype("float32")


def check_scan(name):
    """By layers and by patches: windows cut out, each put through the network."""
    it = made(name)
    window = it.shapes[0][:-1]
    x = larger(name, 2) if len(window) else it.inputs[0]
    by_layers = fcnn.Scan(it.net, window)
    by_layers.out_shape(x.shape[1:])
    windows = np.stack(
        [
            x[(slice(None), *(slice(i, i + n) for i, n in zip(place, window, strict=True)))]
            for place in itertools.product(*[range(3)] * len(window))
        ],
        1,
    )
    y = jax.jit(it.net.apply)(it.params, windows.reshape(-1, *windows.shape[2:]), state=it.state)
    expected = np.asarray(y).reshape(2, *[3] * len(window), *y.shape[1:])
    for network in (by_layers, fcnn.Scan(it.net, window, method="patches")):
        same(jax.jit(network.apply)(it.params, x, state=it.state), expected)


def check_fully_convolutional(name):
    it = made(name)
    net, params = fcnn.fully_convolutional(it.net, it.params, it.shapes[0], state=it.state)
    y = jax.jit(net.apply)(params, *it.inputs, state=it.state)
    same(np.reshape(y, (BATCH, -1)), np.reshape(outputs_of(name), (BATCH, -1)))


def check_scan_tiles(name):
    it = made(name)
    field = analysis.receptive_field(it.net, it.shapes[0])
    shape = tuple(
        3 * size + 2 * period + n % period
        for size, period, n in zip(field.size, field.period, it.shapes[0], strict=False)
    )
    image = np.random.default_rng(2).uniform(-1, 1, (*shape, it.shapes[0][-1])).astype("float32")
    tile = tuple(2 * size + 2 * period for size, period in zip(field.size, field.period, strict=True))
    y = fcnn.scan_tiles(it.net, it.params, image, state=it.state, tile=tile, progress=False)
    same(y, jax.jit(it.net.apply)(it.params, image[None], state=it.state)[0])


def check_gradient_by_use(name):
    """The shares of all uses and positions add up to what jax.grad says."""
    it = made(name)
    trace, _ = values(name)
    x = tuple(x[:2] for x in it.inputs)
    y = jax.eval_shape(it.net.apply, it.params, *x, state=it.state)
    y = jax.tree.map(lambda a: np.cos(np.arange(np.prod(a.shape))).reshape(a.shape).astype("float32"), y)

    def loss(outputs, y):
        return sum(jnp.sum(a * b) for a, b in zip(jax.tree.leaves(outputs), jax.tree.leaves(y), strict=True))

    whole = jax.jit(jax.grad(lambda p: loss(it.net.apply(p, *x, state=it.state), y)))(it.params)
    paths = [node.home for node in trace.walk() if node.layer is not None]
    paths = [path for path in dict.fromkeys(paths) if "kernel" in own(it.params, path)]
    if not paths:  # something without a kernel
        paths = [next(node.home for node in trace.walk() if node.layer is not None)]
    for path in paths:
        shares = jax.jit(
            lambda p, path=path: gradient_by_use(it.net, p, x, y, path or it.net.label, loss=loss, state=it.state)
        )(it.params)
        total = own(whole, path)["kernel"]
        copies = len(trace[path].copies)
        unshared = shares.size == total.size
        axes = () if unshared else tuple(range(copies, shares.ndim - total.ndim + copies))
        same(np.reshape(np.sum(shares, axes), total.shape), total)


def own(tree, path):
    for step in filter(None, path.split("/")):
        tree = tree.get(step, {})
    return tree


def check_algorithms(name):
    """As many convolutions as the program of training has."""
    it = made(name)
    table = analysis.algorithms(it.net, *it.shapes, batch=2, platform="cpu")
    x = [jax.ShapeDtypeStruct((2, *shape), jnp.float32) for shape in it.shapes]
    key = jax.random.key(0)
    program = jax.make_jaxpr(lambda p, *x: it.net.apply_train(p, *x, key=key, state=it.state))(it.params, *x)
    assert sum(row.operation == "forward" for row in table.rows) == str(program).count("fcnn_convolution_forward[")


def check_plan(name):
    """Every layer is in one segment; the network of a scan has a plan of its own."""

    def uses(trace):
        for node in trace:
            if node.layer is not None:
                yield node.path
            for inner in () if node.layer is not None else node.inside:
                yield from uses(inner)

    it = made(name)
    plan = analysis.plan(it.net, *it.shapes, batch=2)
    planned = [path for segment in plan.segments for path in segment.paths]
    observed = fcnn.summary(it.net, *it.shapes).rows
    layers = set(uses(fcnn.trace(it.net, *it.shapes)))
    assert len(planned) == len(set(planned))
    assert {row.path for row in observed if row.path in layers} <= set(planned)


def check_to_reference(name):
    it = made(name)
    with jax.enable_x64(True):
        node, gradients = analysis.to_reference(it.net, it.params, *it.shapes, state=it.state, batch=BATCH)
        y = node.forward(*(np.asarray(x, np.float64) for x in it.inputs))
        node.backward(jax.tree.map(np.ones_like, y))
    for found, expected in zip(jax.tree.leaves(y), jax.tree.leaves(outputs_of(name)), strict=True):
        same(found, expected)
    whole = jax.jit(
        jax.grad(lambda p: sum(map(jnp.sum, jax.tree.leaves(it.net.apply(p, *it.inputs, state=it.state)))))
    )(it.params)
    for found, expected in zip(jax.tree.leaves(gradients()), jax.tree.leaves(whole), strict=True):
        same(found, expected, 1e-3)


def check_check_gradients(name):
    it = made(name)
    x = tuple(x[:2] for x in it.inputs)

    def loss(outputs, y):
        return sum(jnp.sum(jnp.sin(leaf)) for leaf in jax.tree.leaves(outputs))

    report = fcnn.check_gradients(it.net, it.params, x, np.zeros(2), loss=loss, state=it.state, samples=3)
    assert report.ok, report
    if report.unwritten is not None:
        raise ValueError(report.unwritten)


def check_as_mlp(name):
    it = made(name)
    net, params = scan.as_mlp(it.net, it.params, it.shapes[0])
    y = jax.jit(net.apply)(params, *it.inputs)
    same(np.reshape(y, (BATCH, -1)), np.reshape(outputs_of(name), (BATCH, -1)))


def check_as_cascade(name):
    it = made(name)
    net, params = scan.as_cascade(it.net, it.params, it.shapes[0])
    y = jax.jit(net.apply)(params, *it.inputs)
    same(np.reshape(y, (BATCH, -1)), np.reshape(outputs_of(name), (BATCH, -1)))


def check_fold(name):
    it = made(name)
    net, params = fcnn.fold(it.net, it.params, it.state)
    found = jax.jit(net.apply)(params, *it.inputs)
    assert net.init_state(*it.shapes) == {}
    for y, expected in zip(jax.tree.leaves(found), jax.tree.leaves(outputs_of(name)), strict=True):
        same(y, expected)


TOOLS = {
    "trace": check_trace,
    "summary": check_summary,
    "capture": check_capture,
    "observe": check_observe,
    "multiply_adds": check_multiply_adds,
    "receptive_field": check_receptive_field,
    "Scan": check_scan,
    "scan_tiles": check_scan_tiles,
    "fully_convolutional": check_fully_convolutional,
    "gradient_by_use": check_gradient_by_use,
    "algorithms": check_algorithms,
    "plan": check_plan,
    "to_reference": check_to_reference,
    "check_gradients": check_check_gradients,
    "as_mlp": check_as_mlp,
    "as_cascade": check_as_cascade,
    "fold": check_fold,
}


def outcome(tool, name):
    """Raises AssertionError where a tool is wrong; else what it refuses by."""
    try:
        TOOLS[tool](name)
    except (ValueError, TypeError, analysis.Unwritten) as error:
        return str(error)
    return None


PAIRS = [(tool, name) for tool in TOOLS for name in SUBJECTS]
#: of the pairs that compute something, every eighth is run every time, every third of the others with the slow tests,
#: the rest with the exhaustive ones; neighbours differ in number, so each tool and each layer gets its share
QUICK, SLOW = 8, 3


def marks(number, tool, name):
    """When a pair is run: always where it is refused before anything is computed."""
    at_once = fact(tool, name) is not None and tool != "check_gradients"
    if at_once or tool in ("multiply_adds", "as_cascade") or number % QUICK == 0:
        return ()
    return pytest.mark.slow if number % SLOW == 0 else (pytest.mark.slow, pytest.mark.exhaustive)


@pytest.mark.parametrize(
    ("tool", "name"),
    [
        pytest.param(tool, name, id=f"{tool}-{name}", marks=marks(number, tool, name))
        for number, (tool, name) in enumerate(PAIRS)
    ],
)
def test_a_tool_is_right_or_refuses_in_the_one_sentence(tool, name):
    reason, said = fact(tool, name), outcome(tool, name)
    if said is None:
        assert reason is None, f"{tool} takes {name}, which was to be refused"
        return
    assert reason is not None, f"{tool} refuses {name}: {said}"
    assert re.search(SENTENCES[reason], said), said


#: what tools return, and exceptions
RESULTS = {
    *("Algorithms", "GradientReport", "LayerOutput", "Observation", "Observed", "Operation", "ReceptiveField", "Row"),
    *("ScanReport", "Summary", "Unwritten"),
}


def test_every_tool_has_an_entry():
    public = {*analysis.__all__, *scan.__all__, "trace"}
    assert public == {*TOOLS, *RESULTS}
    assert all(isinstance(getattr(analysis, name, None) or getattr(scan, name), type) for name in RESULTS)


def test_every_public_layer_is_a_subject_by_itself_as_an_empty_subclass_and_overridden():
    layers = {value for value in map(fcnn.__getattribute__, fcnn.__all__) if isinstance(value, type)}
    layers = {value for value in layers if issubclass(value, fcnn.Layer)} - {fcnn.Layer}
    for prefix in ("empty", "doubled"):
        kinds = [type(case.net) for name, case in SUBJECTS.items() if name.startswith(prefix)]
        assert {base for kind in kinds for base in kind.__mro__ if base in layers} == layers


def test_facts_are_said_in_one_sentence():
    """A sentence that is refused by in two tools is the same in both, word for word up to the way out."""
    for name in ("locally connected", "group norm", "user's whole space"):
        by_field, by_scan = outcome("receptive_field", name), outcome("Scan", name)
        stated = SUBJECTS[name].net
        stated = stated.parts[0][1] if hasattr(stated, "parts") else stated
        reason = stated.locality(SUBJECTS[name].shape).reason
        assert reason in by_field
        assert reason in by_scan
