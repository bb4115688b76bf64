"""The contract of a layer: the methods that users call, and those that the author of a layer writes.

A layer is a frozen dataclass of hyperparameters. It holds no arrays: parameters and state are arguments and results of
pure functions. The first half of :class:`Layer` has the methods that users call; the second half has the methods that
a layer's author writes.
"""

from __future__ import annotations

import contextlib
import dataclasses
from typing import Any, ClassVar, NoReturn

import jax
import jax.numpy as jnp
import numpy as np

from . import authoring, elsewhere, layout, names
from .checks import check_count, check_entries, check_inputs, check_key, check_mapping, check_one_array, checked_shapes
from .context import Context
from .errors import described, layer_path, outermost_path
from .facts import Locality
from .geometry import Shape, check_shape
from .initialization import draw_initial, draw_statistics, fold
from .native import native
from .pickled import Pickled
from .rehearsal import COMPILING, kind_of, rehearse
from .types import Parameter, Params, State

__all__ = ["Context", "Layer"]


class Layer(Pickled):
    """Two pure functions, ``init`` and ``apply``, as a value.

    Subclass it as ``@dataclass(frozen=True)``. Layers are hashable and compare by their hyperparameters. They are
    static nodes of a pytree, so a network can be an argument of a jitted function. Their ``repr`` is code that
    rebuilds them.

    Example:
        >>> import fcnn
        >>> from dataclasses import dataclass
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

        A layer with state, the arrays that data update, and a random key defines ``forward_train`` and ``forward_eval``
        for the two modes. :func:`fcnn.testing.check_layer` tests it against the contract.

        >>> @dataclass(frozen=True)
        ... class NoisyCentre(Layer):
        ...     scale: float = 0.1
        ...     def statistics(self, shape):
        ...         return {"mean": Parameter(shape[-1:], jax.nn.initializers.zeros)}
        ...     def needs_key(self):
        ...         return True
        ...     def forward_train(self, params, state, key, x):
        ...         batch = x.astype(state["mean"].dtype).reshape(-1, x.shape[-1]).mean(0)
        ...         noise = self.scale * jax.random.normal(key, x.shape, x.dtype)
        ...         return x - batch.astype(x.dtype) + noise, {"mean": 0.9 * state["mean"] + 0.1 * batch}
        ...     def forward_eval(self, params, state, x):
        ...         return x - state["mean"].astype(x.dtype)
        >>> layer, x = NoisyCentre(), jnp.ones((8, 3))
        >>> y, state = layer.apply_train({}, x, key=jax.random.key(1), state=layer.init_state((3,)))
        >>> print(state["mean"], layer.apply({}, x, state=state)[0])
        [0.1 0.1 0.1] [0.9 0.9 0.9]
        >>> fcnn.testing.check_layer(layer, (3,))
    """

    #: number of inputs that the layer takes; None: any number
    inputs: ClassVar[int | None] = 1
    #: whether inputs must be floating-point
    floating: ClassVar[bool] = True
    #: for a composition: whether it only passes arrays from part to part, adds them and concatenates them
    only_hands_on: ClassVar[bool] = False

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        jax.tree_util.register_static(cls)
        if "__repr__" not in cls.__dict__:
            cls.__repr__ = Layer.__repr__  # the one that dataclass generates is not code that rebuilds the layer
        authoring.guard(cls, Layer)

    def __new__(cls, *args: Any, **options: Any) -> Any:
        with layer_path(names.snake(cls.__name__)):
            authoring.check_class(cls, Layer)
            authoring.check_arguments(cls, args, options)
        return super().__new__(cls)

    def __post_init__(self) -> None:
        with layer_path(self.label):
            for name, value in authoring.mapping(self.check, "check").items():
                object.__setattr__(self, name, value)
            for field in dataclasses.fields(self):  # type: ignore[arg-type]
                authoring.check_hyperparameter(field.name, getattr(self, field.name, None))
            self._forget()
            hash(self)  # computed and stored when each part is constructed, so deep nesting needs no recursion

    # What users call.

    def init(self, key: jax.Array, shape: Shape, *more_shapes: Shape) -> Params:
        """Draw the initial parameters.

        Every array has its own key, derived from ``key`` and its path, so other layers do not affect it.

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
        with outermost_path(self.label):
            key, shapes = check_key(key), self.check_shapes((shape, *more_shapes))
            params = self.init_part(key, shapes)
            self._look_at(shapes)
            return params

    def init_state(self, shape: Shape, *more_shapes: Shape) -> State:
        """Create the initial state, such as the running statistics of batch normalisation; ``{}`` for most networks.

        Args:
            shape: shape of one example.
            more_shapes: shapes of further inputs.

        Returns:
            Nested dicts of arrays.

        Raises:
            ValueError: the shape does not suit the network.
            TypeError: not a shape.
        """
        with outermost_path(self.label):
            return self.state_part(self.check_shapes((shape, *more_shapes)))

    def out_shape(self, shape: Shape, *more_shapes: Shape) -> Shape:
        """The output shape of one example, without computing the output.

        Args:
            shape: shape of one example.
            more_shapes: shapes of further inputs.

        Returns:
            The shape of one example of the output.

        Raises:
            ValueError: the shape does not suit the network.
            TypeError: not a shape.
        """
        with outermost_path(self.label):
            return self.infer_shape(*self.check_shapes((shape, *more_shapes)))

    def apply(self, params: Params, x: jax.Array, *more: jax.Array, state: State | None = None) -> Any:
        """Compute the output in inference mode: without dropout, with the stored statistics.

        Args:
            params: the parameters that ``init`` returned, trained or not.
            x: input (batch, *space, channels).
            more: further inputs.
            state: the state that ``init_state`` or ``apply_train`` returned; optional where the network has none.

        Returns:
            The output (batch, *out).

        Raises:
            ValueError: shapes, parameters or state do not match the network; this is checked before any computation.
            TypeError: arguments of the wrong kind, such as integer images.
        """
        return self.start_walk(Context(train=False), params, state, (x, *more))[0]

    def apply_train(
        self,
        params: Params,
        x: jax.Array,
        *more: jax.Array,
        key: jax.Array | None = None,
        state: State | None = None,
    ) -> tuple[Any, State]:
        """Compute the output in training mode: with dropout and batch statistics, which update the state.

        Args:
            params: the parameters that ``init`` returned, trained or not.
            x: input (batch, *space, channels).
            more: further inputs.
            key: random key; optional where the network draws no random numbers.
            state: the state that ``init_state`` or the last ``apply_train`` returned.

        Returns:
            The output, and the new state, a tree of the same structure as the old one.

        Raises:
            ValueError: as for ``apply``; also where a key or state is missing; the message names the layer that needs
                it.
            TypeError: as for ``apply``.
        """
        with outermost_path(self.label):
            root = None if key is None else check_key(key)
        return self.start_walk(Context(train=True, root=root), params, state, (x, *more))

    # What a layer's author writes: infer_shape, parameters, forward; check, where hyperparameters can be wrong;
    # statistics, needs_key, forward_train and forward_eval, where the mode or state matters.

    def check(self) -> dict[str, Any]:
        """Check the hyperparameters; return those to be replaced by a normal form, such as tuples for lists."""
        return {}

    def infer_shape(self, *shapes: Shape) -> Any:
        """The output shape of one example; raises ValueError for inputs that the layer cannot take."""
        return shapes[0]

    def parameters(self, *shapes: Shape) -> dict[str, Parameter]:
        """The arrays that the optimizer may change, by name."""
        if not shapes:
            authoring.refuse("parameters")
        return {}

    def statistics(self, *shapes: Shape) -> dict[str, Parameter]:
        """The arrays that training data update, by name; their initialisers get no key."""
        return {}

    def needs_key(self) -> bool:
        """Whether ``forward_train`` draws random numbers."""
        return False

    def locality(self, shape: Shape) -> Locality | None:
        """How outputs depend on positions of an input (*space, channels); None: tools analyse the operations.

        One of :class:`fcnn.facts.EachPosition`, ``SlidingWindow``, ``SpreadWindow``, ``WholeSpace`` and
        ``Resampled``. It describes the layer at inference; a subclass that overrides ``forward`` has to state its own.
        """
        return None

    def multiply_adds(self, shape: Shape) -> int | None:
        """Multiply-adds with weights for one example; None: tools count the operations."""
        return None

    def forward(self, params: Params, *inputs: jax.Array) -> Any:
        """The output, for layers that compute the same in training and at inference."""
        if not inputs or type(self).run is not Layer.run:
            authoring.refuse("forward")
        missing = [m for m in ("forward_train", "forward_eval") if getattr(type(self), m) is getattr(Layer, m)]
        raise TypeError(
            f"{type(self).__name__} defines no forward(self, params, x)"
            + (" and no forward_train and forward_eval" if len(missing) == 2 else f", and no {missing[0]} either")
        )

    def forward_train(
        self, params: Params, state: State, key: jax.Array | None, *inputs: jax.Array
    ) -> tuple[Any, State]:
        """The output and the new state in training."""
        return self.forward(params, *inputs), state

    def forward_eval(self, params: Params, state: State, *inputs: jax.Array) -> Any:
        """The output at inference."""
        return self.forward(params, *inputs)

    # What users of other libraries try; each raises with what to write instead.

    def __call__(self, *args: Any, **options: Any) -> NoReturn:
        raise TypeError(
            f"{self.label}: a network holds no parameters and is not called: write net.apply(params, x), with params "
            "from net.init(key, shape); in training net.apply_train(params, x, key=key, state=state)"
        )

    def __getattr__(self, name: str) -> Any:
        said = elsewhere.method(name)
        raise AttributeError(f"{type(self).__name__!r} has no attribute {name!r}" + (f"; {said}" if said else ""))

    # The link between the two halves; compositions override these.

    @property
    def label(self) -> str:
        """The class name in the form used for names of parts: MaxPool becomes max_pool."""
        return names.snake(type(self).__name__)

    def init_part(self, key: jax.Array, shapes: tuple[Shape, ...]) -> Params:
        """``init`` for arguments that are already checked."""
        self.declared_shape(shapes)
        dtype = jnp.zeros(()).dtype
        declared = authoring.declared(self, "parameters", shapes)
        return {name: draw_initial(name, parameter, fold(key, name), dtype) for name, parameter in declared.items()}

    def state_part(self, shapes: tuple[Shape, ...]) -> State:
        """``init_state`` for arguments that are already checked."""
        self.declared_shape(shapes)
        dtype = jnp.zeros(()).dtype
        declared = authoring.declared(self, "statistics", shapes)
        return {name: draw_statistics(name, parameter, dtype) for name, parameter in declared.items()}

    def run(self, context: Context, params: Params, state: State, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        """Check everything that can be checked from shapes, then compute in the mode of the context."""
        if context.record is not None:
            return context.record.use(self, context, params, state, inputs)
        shapes = checked_shapes(inputs, self.inputs, self.floating)
        self.check_given(params, inputs)
        out = self.declared_shape(shapes)
        check_entries("params", params, authoring.declared(self, "parameters", shapes), shapes)
        statistics = authoring.declared(self, "statistics", shapes)
        if statistics and not state:
            raise ValueError(
                f"needs its {' and '.join(statistics)} of the data so far: pass state=; "
                "net.init_state(shape) makes the first, apply_train returns the next"
            )
        check_entries("state", state, statistics, shapes)
        if not context.train:
            y = authoring.asked(self, "forward_eval", params, state, *inputs)
            self.check_output("forward_eval", y, out, inputs)
            return y, state
        key = context.key if self.needs_key() else None
        answer = authoring.asked(self, "forward_train", params, state, key, *inputs)
        if not isinstance(answer, tuple) or len(answer) != 2:
            raise TypeError(f"forward_train returned {described(answer)}, it must return the pair (y, state)")
        y, new_state = answer
        self.check_output("forward_train", y, out, inputs)
        authoring.check_new_state(new_state, state, statistics)
        return y, new_state

    def declared_shape(self, shapes: tuple[Shape, ...]) -> Any:
        """The result of ``infer_shape`` for one example: a shape, or a tree of shapes for several outputs."""
        return authoring.asked(self, "infer_shape", *shapes)

    def check_output(self, method: str, y: Any, out: Any, inputs: tuple[Any, ...]) -> None:
        """Raise where the output of ``forward`` contradicts ``infer_shape``."""
        authoring.check_output(self, method, y, out, inputs[0].shape[0])

    def start_walk(self, context: Context, params: Any, state: Any, inputs: tuple[Any, ...]) -> tuple[Any, State]:
        """Check the arguments of a whole network, then run it.

        Outside ``jit`` the pass is first rehearsed on shapes alone, once for each combination of shapes and dtypes, so
        that an error in the last layer is raised before the first layer computes anything.
        """
        with outermost_path(self.label):
            params, state = check_mapping("params", params), check_mapping("state", {} if state is None else state)
            check_inputs(inputs)
            check_count(self.inputs, len(inputs))
            leaves, tree = jax.tree.flatten((context.root, params, state, inputs))
            leaves = list(map(native, leaves))
            compiling = any(type(leaf).__name__ == COMPILING for leaf in leaves)
            if not compiling:
                if all(hasattr(leaf, "dtype") for leaf in leaves):
                    rehearse(self, context.train, tree, tuple(map(kind_of, leaves)), context.resting)
                else:  # a leaf that is not an array may be unhashable; the pass will raise for it
                    rehearse.__wrapped__(self, context.train, tree, leaves, context.resting)
            self._look_at(tuple(tuple(x.shape[1:]) for x in inputs))
            if any(isinstance(leaf, np.ndarray) for leaf in leaves):
                arrays = [jnp.asarray(leaf) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves]
                _, params, state, inputs = jax.tree.unflatten(tree, arrays)
            # constants in the layers' own code are not data, so jax.transfer_guard should not apply to them
            with contextlib.nullcontext() if compiling else jax.transfer_guard_host_to_device("allow"):
                y, new_state = self.run(context, params, state, inputs)
            if context.observer is not None and not context.kept:  # a network of a single layer
                y = context.seen(self, inputs, y)
            return y, new_state

    def _look_at(self, shapes: tuple[Shape, ...]) -> None:
        """Warn where the inputs' axes look as if they were in another library's order."""
        for shape in shapes:
            if layout.suspicion(shape) is not None and self.slides(shapes):
                layout.warn(shape)

    def slides(self, shapes: tuple[Shape, ...]) -> bool:
        """Whether a window slides directly over the network's inputs."""
        return False

    def check_shapes(self, shapes: tuple[Any, ...]) -> tuple[Shape, ...]:
        """Convert shapes to plain tuples of integers; raise unless there are as many as the layer takes."""
        return self.accept_shapes(tuple(check_shape(shape) for shape in shapes))

    def accept_shapes(self, shapes: tuple[Any, ...]) -> tuple[Shape, ...]:
        """Raise unless the outputs of the layers before suit this one: one array for each of its inputs."""
        check_count(self.inputs, len(shapes))
        for shape in shapes:
            check_one_array(shape, self.floating)
        return shapes

    def check_given(self, params: Params, inputs: tuple[Any, ...]) -> None:
        """Raise where the inputs contradict the parameters in a way that deserves its own message."""

    def __repr__(self) -> str:
        return names.rebuild(self)
