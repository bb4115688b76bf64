"""The page of the rows, in Markdown."""

from __future__ import annotations

from collections.abc import Sequence

from .activations import ACTIVATIONS
from .convolution import CONVOLUTION
from .initial_values import INITIAL_VALUES
from .normalisation import NORMALISATION
from .padding import PADDING
from .pooling import POOLING
from .position import DENSE, RESIZE
from .row import LIBRARIES, WEIGHTS, Row, Section, Signature
from .transposed import TRANSPOSED

PAGE = "docs/the_same_word_elsewhere.md"
SECTIONS = (
    CONVOLUTION,
    TRANSPOSED,
    POOLING,
    PADDING,
    NORMALISATION,
    DENSE,
    RESIZE,
    ACTIVATIONS,
    INITIAL_VALUES,
)

CHECKED_WITH = ", ".join(f"{library} {version}" for library, version in LIBRARIES.items())
INTRODUCTION = f"""\
# The same word elsewhere

PyTorch, Keras, Flax and ONNX use the same words for convolutions, pools and norms, often with different meanings.
For what is read there, each row gives the meaning, what to write in fcnn, and what looks the same in fcnn but is
not.

**Every row is a test.** The code of both libraries runs in float64 and agrees to 1e-10 (to 1e-6 where Keras
computes means in float32 or ONNX has attributes in float32, and to 1e-5 in onnxruntime, which runs in float32). The
code in the last column gives a different result. The tests ran with {CHECKED_WITH}; with Keras on JAX, with Flax's
Linen, and with NNX for the modules that it shares with Linen. The rows are in `tests/words_elsewhere`; this page is
generated from them.

In the examples x has 8 x 7 samples and 4 channels: (batch, channels, height, width) in PyTorch and ONNX, (batch,
height, width, channels) in the other libraries. Names without a module are those of `torch.nn`, `keras.layers`,
`flax.linen`, ONNX's operators and `fcnn`; `F` is `torch.nn.functional`, `ops` is `fcnn.ops` (in Keras's code
`keras.ops`). ONNX's inputs other than x are written as arguments, weights by their shapes.

The notebook [06](../notebooks/06_the_same_word_elsewhere.ipynb) shows the differences that matter most. For the
names of classes and methods see the [README](../README.md#coming-from-elsewhere), for weights from PyTorch the
[recipes](recipes.md#weights-from-pytorch) and `interop.from_torch`. `interop.compare` finds the first layer that
differs.
"""

TEXT_OF_WEIGHTS = """\
## Weights

How to convert the arrays, in two dimensions, unless a row says otherwise.
"""


def table(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    rows = [header, ["---"] * len(header), *lines]
    return "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in row) + " |\n" for row in rows)


def code(text: str) -> str:
    return f"`{text}`" if text else ""


def arguments(signature: Signature) -> str:
    """What the arguments of an operation are called."""
    libraries = [*LIBRARIES, "fcnn"]
    used = [place for place, name in enumerate(signature.names) if name]
    header = [f"{libraries[place]} {code(signature.names[place])}" for place in used]
    return table(header, [[code(argument.names[place]) for place in used] for argument in signature.arguments])


def line(row: Row) -> list[str]:
    """A row of the page."""
    here = [code(row.here)]
    for library, rules in row.weights.items():
        named = f"{library}: " if len(row.weights) > 1 else ""
        here += [f"{named}{name} = {code(rule)}" for name, rule in rules.items() if name.split("/")[-1] in SHOWN]
    unlike = [code(text) for text in row.unlike]
    for library, rules in row.weights_unlike.items():
        named = f"{library}: " if len(row.weights_unlike) > 1 else ""
        unlike += [f"{named}{name} = {code(rule)}" for name, rule in rules.items()]
    there = [f"{library} {code(text)}" for library, text in row.there.items()]
    return [row.word, "<br>".join(there), row.means, "<br>".join(here), "<br>".join(unlike)]


#: parameters whose rules are shown in rows; those of the others are as in the table of weights
SHOWN = ("kernel", "scale", "slope", "count")


def section(given: Section) -> str:
    parts = [f"## {given.title}\n", f"{given.text}\n" if given.text else ""]
    parts += [arguments(signature) for signature in given.signatures]
    parts.append(table(["", "read there", "meaning", "write here", "not the same"], [line(row) for row in given.rows]))
    return "\n".join(part for part in parts if part)


def weights() -> str:
    kinds = {name: list(entries) for rules in WEIGHTS.values() for name, entries in rules.items()}
    lines = [
        [f"{name}, {entry}", *(code(WEIGHTS[library][name][entry]) for library in LIBRARIES)]
        for name, entries in kinds.items()
        for entry in entries
    ]
    return TEXT_OF_WEIGHTS + "\n" + table(["here", *LIBRARIES], lines)


def page() -> str:
    """The whole page."""
    return "\n".join([INTRODUCTION, *map(section, SECTIONS), weights()])
