"""The onnx package's own tests of operators, as networks with inputs and outputs; and how each is compared."""

import functools
import warnings
from dataclasses import dataclass
from pathlib import Path

import jax.numpy as jnp
import numpy as np
import onnx
from onnx import numpy_helper

from fcnn import interop

#: dtypes that networks are made for; others have tests of their own, of conversions and of texts
NUMBERS = [np.dtype(name) for name in ("float16", "float32", "float64", "int32", "int64", "uint8", "int8", "bool")]


@dataclass(frozen=True)
class Case:
    """One test of the package.

    Attributes:
        name: its name there.
        model: the network.
        inputs: its inputs, in the file's order of axes.
        outputs: what it has to give.
    """

    name: str
    model: onnx.ModelProto
    inputs: list
    outputs: list

    @property
    def kinds(self):
        """Its operators."""
        return {node.op_type for node in self.model.graph.node}


@functools.cache
def node_cases():
    """A case for every test of a single operator whose inputs and outputs are arrays of numbers."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        found = collect_testcases(None)
    cases = []
    for test in found:
        inputs, outputs = test.data_sets[0]
        arrays = [array for array in (*inputs, *outputs) if isinstance(array, np.ndarray)]
        if len(arrays) == len(inputs) + len(outputs) and all(array.dtype in NUMBERS for array in arrays):
            cases.append(Case(test.name, test.model, list(inputs), list(outputs)))
    return cases


def stored_cases(folder):
    """The cases that the package has as files: networks that PyTorch's modules were exported to."""
    root = Path(onnx.__file__).parent / "backend" / "test" / "data" / folder
    for place in sorted(root.iterdir()):
        if (place / "test_data_set_0").is_dir():
            read = [
                [_array(path) for path in sorted((place / "test_data_set_0").glob(f"{kind}_*.pb"))]
                for kind in ("input", "output")
            ]
            yield Case(place.name, onnx.load(str(place / "model.onnx")), *read)


def _array(path):
    tensor = onnx.TensorProto()
    tensor.ParseFromString(path.read_bytes())
    return numpy_helper.to_array(tensor)


def to_last(array):
    """An array of the file's order, (batch, channels, *space), with the channels last."""
    array = np.asarray(array)
    return np.moveaxis(array, 1, -1) if array.ndim > 2 else array


def with_weights(case, names):
    """The model with some of its inputs as weights, as a trained network has them."""
    model = onnx.ModelProto()
    model.CopyFrom(case.model)
    given = [value.name for value in model.graph.input]
    for name, array in zip(given, case.inputs, strict=False):
        if name in names:
            model.graph.initializer.append(numpy_helper.from_array(np.asarray(array), name))
    return model


def ways(case):
    """The ways to tell inputs from weights: all are inputs, or the first alone is."""
    names = [value.name for value in case.model.graph.input]
    known = {weight.name for weight in case.model.graph.initializer}
    free = [name for name in names if name not in known]
    if free:
        yield free
    if len(free) > 1:
        yield free[:1]


def run(case, inputs):
    """What the network that is read gives, for the inputs of these names, and what it has to give."""
    names = [value.name for value in case.model.graph.input]
    weights = [name for name in names if name not in inputs]
    net, params, state = interop.from_onnx(with_weights(case, weights))
    arrays = [jnp.asarray(to_last(array)) for name, array in zip(names, case.inputs, strict=False) if name in inputs]
    made = net.apply(params, *arrays, state=state)
    made = list(made.values()) if isinstance(made, dict) else [made]
    return net, [np.asarray(array) for array in made], [to_last(array) for array in case.outputs]


def difference(made, wanted):
    """The largest difference of two lists of arrays, as a share of the largest entry; inf where shapes differ."""
    worst = 0.0
    for ours, theirs in zip(made, wanted, strict=True):
        if ours.shape != theirs.shape:
            return np.inf
        ours, theirs = ours.astype(np.float64), theirs.astype(np.float64)
        odd = ~np.isfinite(theirs)
        if not np.array_equal(ours[odd], theirs[odd], equal_nan=True):
            return np.inf
        size = np.abs(theirs[~odd]).max(initial=1e-30)  # some stored arrays were never filled and hold 1e-310
        worst = max(worst, np.abs(ours[~odd] - theirs[~odd]).max(initial=0) / size)
    return worst
