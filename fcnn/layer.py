"""The contract: what a layer is, and what one that you write has to say.

A layer is a frozen dataclass of hyperparameters. It holds no arrays: parameters and state go in and come out of
pure functions. The first half of :class:`Layer` is what users call; the second half is what a layer's author
writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from . import names
from .errors import at, at_top, shown
from .geometry import Shape, check_shape, is_shape
from .given import (
    Parameter,
    Params,
    State,
    check_entries,
    check_inputs,
    check_key,
    check_mapping,
    draw_initial,
    fold,
    number,
)


class Layer:
    """Two pure functions, ``init`` and ``apply``, as a value.

    Subclass it as ``@dataclass(frozen=True)``. Layers are hashable and compare by their hyperparameters, are
    static nodes of a pytree (so a network can be an argument of a jitted function), and ``repr`` is code that
    rebuilds them.

    Example:
        >>> import fcnn
        >>> @dataclass(frozen=True)
        ... class Scale(Layer):
        ...     start: float = 1.0
        ...     def parameters(self, shape):
        ...         return {"scale": Parameter(shape[-1:], jax.nn.initializers.constant(self.start))}
        ...     def forward(self, params, x):
        ...         return x * params["scale"]
        >>> net = fcnn.serial(Scale(2.0), fcnn.Flatten())
        >>> params = net.init(jax.random.key(0), (2, 1))
        >>> net.apply(params, jnp.ones((1, 2, 1))).tolist()
        [[2.0, 2.0]]
    """

    #: how many inputs the layer takes; None: any number
    inputs: ClassVar[int | None] = 1
    #: whether inputs must be of floating point
    floating: ClassVar[bool] = True

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        jax.tree_util.register_static(cls)
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Layer.__repr__  # dataclass would write one that is not code

    def __post_init__(self) -> None:
        with at(self.label):
            for name, value in self.check().items():
                object.__setattr__(self, name, value)
            for name, value in vars(self).items():
                try:
                    hash(value)
                except TypeError:
                    raise TypeError(
                        f"{name} is a {type(value).__name__}, which cannot be hashed; hyperparameters are plain "
                        "values: use a tuple for a list, and make arrays parameters"
                    ) from None

    # What users call.

    def init(self, key: jax.Array, shape: Shape, *more_shapes: Shape) -> Params:
        """Make the first parameters.

        Every array is drawn from a key folded from its path, so other layers do not change it.

        Args:
            key: random key, ``jax.random.key(0)``.
            shape: shape of one example, (*space, channels), without the batch axis.
            more_shapes: shapes of further inputs, for networks that take several.

        Returns:
            Nested dicts of arrays; layers without parameters have no entry.

        Raises:
            ValueError: the shape does not suit the network; the message names the layer.
            TypeError: not a key, or not a shape.
        """
        with at_top(self.label):
            return self.init_part(check_key(key), self.check_shapes((shape, *more_shapes)))

    def init_state(self, shape: Shape, *more_shapes: Shape) -> State:
        """Make the first state, such as the running statistics of batch normalisation; ``{}`` for most networks.

        Args:
            shape: shape of one example.
            more_shapes: shapes of further inputs.

        Returns:
            Nested dicts of arrays.

        Raises:
            ValueError: the shape does not suit the network.
            TypeError: not a shape.
        """
        with at_top(self.label):
            return self.state_part(self.check_shapes((shape, *more_shapes)))

    def out_shape(self, shape: Shape, *more_shapes: Shape) -> Shape:
        """The shape that ``apply`` would give for one example, found without computing it.

        Args:
            shape: shape of one example.
            more_shapes: shapes of further inputs.

        Returns:
            The shape of one example of the output.

        Raises:
            ValueError: the shape does not suit the network.
            TypeError: not a shape.
        """
        with at_top(self.label):
            return self.infer_shape(*self.check_shapes((shape, *more_shapes)))

    def apply(self, params: Params, x: jax.Array, *more: jax.Array, state: State | None = None) -> Any:
        """Compute the output as it is used: dropout off, stored statistics in use.

        Args:
            params: what ``init`` returned, trained or not.
            x: input (batch, *space, channels).
            more: further inputs.
            state: what ``init_state`` or ``apply_train`` returned; may be left out where the network has none.

        Returns:
            The output (batch, *out).

        Raises:
            ValueError: shapes, parameters or state that do not match the network; nothing has been computed then.
            TypeError: arguments of the wrong kind, such as integer images.
        """
        return self.start(Call(train=False), params, state, (x, *more))[0]

    def apply_train(
        self,
        params: Params,
        x: jax.Array,
        *more: jax.Array,
        key: jax.Array | None = None,
        state: State | None = None,
    ) -> tuple[Any, State]:
        """Compute the output as it is trained: dropout on, statistics of the batch in use and updated.

        Args:
            params: what ``init`` returned, trained or not.
            x: input (batch, *space, channels).
            more: further inputs.
            key: random key; may be left out where the network has no dropout.
            state: what ``init_state`` or the last ``apply_train`` returned.

        Returns:
            The output, and the new state, a tree of the same form as the old one.

        Raises:
            ValueError: as ``apply``; also a missing key or state, naming the layer that needs it.
            TypeError: as ``apply``.
        """
        with at_top(self.label):
            root = None if key is None else check_key(key)
        return self.start(Call(train=True, root=root), params, state, (x, *more))

    # What a layer's author writes: infer_shape, parameters, forward; where hyperparameters can be wrong, check;
    # and where mode or state matter, statistics, needs_key, forward_train and forward_eval.

    def check(self) -> dict[str, Any]:
        """Check the hyperparameters; returns those to be put in a plainer form, such as lists as tuples."""
        return {}

    def infer_shape(self, *shapes: Shape) -> Any:
        """The output shape of one example; raises ValueError for inputs that the layer cannot take."""
        return shapes[0]

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        """The arrays that the optimizer may change, by name."""
        return {}

    def statistics(self, *shapes: Shape) -> dict[str, Parameter]:
        """The arrays that the data may change, by name; their initialisers get no key."""
        return {}

    def needs_key(self) -> bool:
        """Whether ``forward_train`` draws random numbers."""
        return False

    def forward(self, params: Params, *inputs: jax.Array) -> Any:
        """The output, for layers that are the same in training and use."""
        raise NotImplementedError(f"{type(self).__name__} defines neither forward nor forward_train and forward_eval")

    def forward_train(
        self, params: Params, state: State, key: jax.Array | None, *inputs: jax.Array
    ) -> tuple[Any, State]:
        """The output and the new state in training."""
        return self.forward(params, *inputs), state

    def forward_eval(self, params: Params, state: State, *inputs: jax.Array) -> Any:
        """The output in use."""
        return self.forward(params, *inputs)

    # How the two halves meet; compositions override these four.

    @property
    def label(self) -> str:
        """The class as the names of parts have it: MaxPool becomes max_pool."""
        return names.snake(type(self).__name__)

    def init_part(self, key: jax.Array, shapes: tuple[Shape, ...]) -> Params:
        """``init`` with its arguments checked."""
        self.infer_shape(*shapes)
        dtype = jnp.zeros(()).dtype
        params = {}
        for name, parameter in self.parameters(*shapes).items():
            params[name] = draw_initial(name, parameter, fold(key, name), dtype)
        return params

    def state_part(self, shapes: tuple[Shape, ...]) -> State:
        """``init_state`` with its arguments checked."""
        self.infer_shape(*shapes)
        dtype = jnp.zeros(()).dtype
        return {name: p.init(None, tuple(p.shape), dtype) for name, p in self.statistics(*shapes).items()}

    def run(self, call: Call, params: Params, state: State, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        """Check everything that can be checked from shapes, then compute in the mode of the call."""
        shapes = self._input_shapes(inputs)
        self.check_given(params, inputs)
        self.infer_shape(*shapes)
        check_entries("params", params, self.parameters(*shapes), shapes)
        statistics = self.statistics(*shapes)
        if statistics and not state:
            raise ValueError(
                f"needs its {' and '.join(statistics)} of the data so far: pass state=; "
                "net.init_state(shape) makes the first, apply_train returns the next"
            )
        check_entries("state", state, statistics, shapes)
        if not call.train:
            return self.forward_eval(params, state, *inputs), state
        key = call.key if self.needs_key() else None
        answer = self.forward_train(params, state, key, *inputs)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise TypeError(f"forward_train returned a {type(answer).__name__}, it must return the pair (y, state)")
        check_entries("state", check_mapping("state", answer[1]), statistics, shapes)
        return answer

    def start(self, call: Call, params: Any, state: Any, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        """Check the arguments of a whole network, then run it.

        Outside ``jit`` the walk is first rehearsed on shapes alone, once for each kind of arguments, so that
        an error in the last layer comes before the first has computed anything.
        """
        with at_top(self.label):
            params, state = check_mapping("params", params), check_mapping("state", {} if state is None else state)
            check_inputs(inputs)
            self._check_count(len(inputs))
            leaves, tree = jax.tree.flatten((call.root, params, state, inputs))
            if not any(type(leaf).__name__ == _COMPILING for leaf in leaves):
                if all(hasattr(leaf, "dtype") for leaf in leaves):
                    _rehearse(self, call.train, tree, tuple(map(_kind_of, leaves)), call.resting)
                else:  # something that is no array and cannot be hashed: it is about to be refused
                    _rehearse.__wrapped__(self, call.train, tree, leaves, call.resting)
            return self.run(call, params, state, tuple(map(jnp.asarray, inputs)))

    def check_shapes(self, shapes: tuple[Any, ...]) -> tuple[Shape, ...]:
        """Plain tuples of integers, as many as the layer takes."""
        return self.accept_shapes(tuple(check_shape(shape) for shape in shapes))

    def accept_shapes(self, shapes: tuple[Any, ...]) -> tuple[Shape, ...]:
        """Raise unless what the layers before made is what this one takes: arrays, as many as it has inputs."""
        self._check_count(len(shapes))
        for shape in shapes:
            if not is_shape(shape):
                raise TypeError(
                    f"takes one array, but the part before it gives several of the shapes {shape}; "
                    "choose or join them by a function"
                )
            if self.floating and not shape:
                raise ValueError("takes (batch, *space, channels), but the part before it gives (batch,) alone")
        return shapes

    def _check_count(self, count: int) -> None:
        if self.inputs is not None and count != self.inputs:
            raise TypeError(
                f"takes {self.inputs} input{'s' * (self.inputs != 1)}, {count} were given; "
                "a network of several inputs is made by fcnn.graph"
            )

    def _input_shapes(self, inputs: tuple[Any, ...]) -> tuple[Shape, ...]:
        self._check_count(len(inputs))
        for x in inputs:
            if not hasattr(x, "shape"):
                raise TypeError(f"takes an array (batch, *space, channels), not a {type(x).__name__}")
            if self.floating and not jnp.issubdtype(x.dtype, jnp.floating):
                raise TypeError(
                    f"x has dtype {x.dtype}, layers compute in floating point; "
                    "convert it first, for images such as x.astype('float32') / 255"
                )
            if x.ndim < 2:
                raise ValueError(
                    f"x has shape {shown(x.shape)}, expected (batch, *space, channels); "
                    "one example alone needs a batch axis, x[None]"
                )
        return tuple(tuple(x.shape[1:]) for x in inputs)

    def check_given(self, params: Params, inputs: tuple[Any, ...]) -> None:
        """Raise where the inputs contradict the parameters in a way that deserves its own words."""

    def __repr__(self) -> str:
        return names.rebuild(self)

    def __reduce__(self) -> tuple[Any, ...]:
        fields = {f.name: names.pack(getattr(self, f.name)) for f in dataclasses.fields(self)}  # type: ignore[arg-type]
        return _restore, (type(self), fields)

    def __copy__(self) -> Layer:
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> Layer:
        return self


@dataclass(frozen=True)
class Call:
    """One walk through a network: its mode, and where in the network it is.

    Attributes:
        train: whether the network is being trained.
        root: the random key of the whole walk, or None.
        folds: numbers folded into the root on the way to this part; folded only where a layer draws.
        path: names of the parts on the way.
        events: where outputs are noted down as they appear, for ``capture`` and ``summary``; None: nowhere.
        nudges: by path, what is added to the output of a part, whose own parameters are then constants: the gradient
            with respect to a nudge of zero is the gradient at that output. None: nothing, anywhere.
        resting: paths, from here, of parts that run as they are used although the network is being trained.
    """

    train: bool
    root: jax.Array | None = None
    folds: tuple[Any, ...] = ()
    path: tuple[str, ...] = ()
    events: list[Event] | None = None
    nudges: dict[str, jax.Array] | None = None
    resting: frozenset[str] = frozenset()

    @property
    def key(self) -> jax.Array:
        """The random key of this part."""
        if self.root is None:
            raise ValueError(
                "draws random numbers in training and needs a key: apply_train(..., key=jax.random.key(0))"
            )
        key = self.root
        for step in self.folds:
            key = jax.random.fold_in(key, step)
        return key

    def part(
        self, name: str, layer: Layer, params: Params, state: State, inputs: tuple[Any, ...], use: int = 0
    ) -> tuple[Any, State]:
        """Run one named part of a composition; ``use`` counts the uses of a shared part."""
        folds = (*self.folds, number(name), *((use,) if use else ()))
        step = name if not use else f"{name}#{use + 1}"
        inner = dataclasses.replace(self, folds=folds, path=(*self.path, step), **self._mode(name))
        with at(name):
            own_params = check_mapping("params", params.get(name, {}))
            own_state = check_mapping("state", state.get(name, {}))
            nudge = None if self.nudges is None else self.nudges.get("/".join(inner.path))
            if nudge is not None:
                own_params = jax.lax.stop_gradient(own_params)
            y, new_state = layer.run(inner, own_params, own_state, inputs)
        if self.events is not None:
            self.events.append(Event("/".join(inner.path), layer, inputs, y))
        return y if nudge is None else y + nudge, new_state

    def _mode(self, name: str) -> dict[str, Any]:
        """How one part runs where some rest."""
        if not self.resting:
            return {}
        if name in self.resting:
            return {"train": False, "resting": frozenset()}
        inside = (path.removeprefix(f"{name}/") for path in self.resting if path.startswith(f"{name}/"))
        return {"resting": frozenset(inside)}

    def copy(self, index: Any) -> Call:
        """The walk through one of several copies of a layer, with random numbers and nudges of its own."""
        here = "".join(f"{step}/" for step in self.path)
        nudges = self.nudges and {path: a[index] for path, a in self.nudges.items() if path.startswith(here)}
        events = None if self.events is None else []
        return dataclasses.replace(self, folds=(*self.folds, index), events=events, nudges=nudges)


class Event(NamedTuple):
    """What one part of a network made of its inputs; inside ``repeat`` the arrays have first axes for the copies."""

    path: str
    layer: Layer
    inputs: tuple[Any, ...]
    output: Any
    copies: Shape = ()


#: the class of what jit traces with; anything else, also under grad and vmap alone, may be computed at once
_COMPILING = "DynamicJaxprTracer"


def _kind_of(leaf: Any) -> jax.ShapeDtypeStruct:
    return jax.ShapeDtypeStruct(leaf.shape, jax.dtypes.canonicalize_dtype(leaf.dtype, allow_extended_dtype=True))


@functools.lru_cache(maxsize=512)
def _rehearse(
    layer: Layer, train: bool, tree: Any, leaves: Sequence[Any], resting: frozenset[str] = frozenset()
) -> None:
    """Run a network on shapes and dtypes alone; raises what running it would raise."""
    abstract = [_kind_of(leaf) for leaf in leaves if hasattr(leaf, "dtype")]

    def walk(*arrays: Any) -> Any:
        rest = iter(arrays)
        root, params, state, inputs = jax.tree.unflatten(
            tree, [next(rest) if hasattr(leaf, "dtype") else leaf for leaf in leaves]
        )
        return layer.run(Call(train=train, root=root, resting=resting), params, state, inputs)[0]

    # a function in the network that looks at values cannot be rehearsed; it is run as it is
    with contextlib.suppress(jax.errors.JAXTypeError):
        jax.eval_shape(walk, *abstract)


def _restore(kind: type[Layer], fields: dict[str, Any]) -> Layer:
    """Undo ``Layer.__reduce__``; the values were checked when the layer was first made."""
    layer = object.__new__(kind)
    for name, value in fields.items():
        object.__setattr__(layer, name, names.unpack(value))
    return layer
