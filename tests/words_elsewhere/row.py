"""A row of the page "The same word elsewhere": code of other libraries, and the code here that computes the same."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

#: the columns of the page, in its order, with the versions that the rows were checked with
LIBRARIES = {"PyTorch": "2.13.0", "Keras": "3.15.1", "Flax": "0.12.8", "ONNX": "1.23.2"}


@dataclass(frozen=True)
class Row:
    """One meaning of a word.

    The test evaluates the strings, so the page shows what was run.

    Attributes:
        id: name of the test.
        word: what the row is about: an argument, or what a layer does.
        there: code of each library that has this meaning. It gives a module or function, or uses the array ``x``.
        means: what it means, in one sentence.
        here: code of fcnn that computes the same: a layer or a function.
        unlike: code of fcnn that reads like the code there and computes something else.
        weights: for each library, our parameters and statistics, by path, from the arrays there, where
            :data:`WEIGHTS` does not say.
        weights_unlike: another way to take the arrays over, of the right shapes, that gives another result.
        shape: of x, channels last.
        mode: "apply": outputs at inference; "train": outputs in training, and the new statistics; "frozen": outputs in
            training there, at inference here; "dropout": what is dropped; "kernel" or "bias": the distribution of
            initial values.
        positive: whether all of x is positive.
    """

    id: str
    word: str
    there: Mapping[str, str]
    means: str
    here: str
    unlike: tuple[str, ...] = ()
    weights: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    weights_unlike: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    shape: tuple[int, ...] = (2, 8, 7, 4)
    mode: str = "apply"
    positive: bool = False


@dataclass(frozen=True)
class Argument:
    """An argument's name in every library, with its default where it has one, such as "stride=1"; "": there is none."""

    pytorch: str
    keras: str
    flax: str
    onnx: str
    fcnn: str

    @property
    def names(self) -> tuple[str, str, str, str, str]:
        """The names in the order of the page."""
        return self.pytorch, self.keras, self.flax, self.onnx, self.fcnn


@dataclass(frozen=True)
class Signature:
    """The arguments of one operation.

    Attributes:
        names: class of the operation in PyTorch, Keras, Flax, ONNX and fcnn.
        arguments: one for each line of the table.
    """

    names: tuple[str, str, str, str, str]
    arguments: tuple[Argument, ...]


@dataclass(frozen=True)
class Section:
    """A section of the page: its title, what has to be known, the table of arguments and the rows."""

    title: str
    text: str
    rows: tuple[Row, ...]
    signatures: tuple[Signature, ...] = ()


#: our parameters and statistics from the arrays of each library, in two dimensions, for a layer of fcnn by its class
WEIGHTS: dict[str, dict[str, dict[str, str]]] = {
    "PyTorch": {
        "Conv": {"kernel": "weight.transpose(2, 3, 1, 0)", "bias": "bias"},
        "ConvTranspose": {"kernel": "weight.transpose(2, 3, 0, 1)", "bias": "bias"},
        "Dense": {"kernel": "weight.T", "bias": "bias"},
        "Norm": {"scale": "weight", "bias": "bias", "mean": "running_mean", "variance": "running_var"},
        "PReLU": {"slope": "weight"},
    },
    "Keras": {
        "Conv": {"kernel": "kernel", "bias": "bias"},
        "ConvTranspose": {"kernel": "kernel.transpose(0, 1, 3, 2)", "bias": "bias"},
        "Dense": {"kernel": "kernel", "bias": "bias"},
        "Norm": {"scale": "gamma", "bias": "beta", "mean": "moving_mean", "variance": "moving_variance"},
        "PReLU": {"slope": "alpha"},
    },
    "Flax": {
        "Conv": {"kernel": "kernel", "bias": "bias"},
        "ConvTranspose": {"kernel": "kernel[::-1, ::-1]", "bias": "bias"},
        "Dense": {"kernel": "kernel", "bias": "bias"},
        "Norm": {"scale": "scale", "bias": "bias", "mean": "mean", "variance": "var"},
        "PReLU": {"slope": "negative_slope"},
    },
    "ONNX": {
        "Conv": {"kernel": "W.transpose(2, 3, 1, 0)", "bias": "B"},
        "ConvTranspose": {"kernel": "W.transpose(2, 3, 0, 1)", "bias": "B"},
        "Dense": {"kernel": "B.T", "bias": "C"},
        "Norm": {"scale": "scale", "bias": "B", "mean": "input_mean", "variance": "input_var"},
        "PReLU": {"slope": "slope"},
    },
}
