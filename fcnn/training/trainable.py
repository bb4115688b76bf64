"""Trainable and frozen parts of a network."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any

import jax

from ..errors import layer_path
from ..types import Params, State

#: the maximum number of paths in an error
_LISTED = 12


@dataclass(frozen=True)
class Trainable:
    """The parts of a network that are trained, by path; made by :func:`trainable` and :func:`frozen`.

    Called with parameters, it returns a tree of True and False, which is a mask for optax.

    Attributes:
        patterns: paths, in which ``*`` matches any name and ``**`` any number of names.
        named: whether the patterns name the trained parts instead of the frozen ones.
    """

    patterns: tuple[str, ...]
    named: bool = True

    def __call__(self, params: Params) -> Any:
        self.check(params, {})
        return self.mask(params)

    def __repr__(self) -> str:
        return f"training.{'trainable' if self.named else 'frozen'}({', '.join(map(repr, self.patterns))})"

    def chosen(self, path: tuple[str, ...]) -> bool:
        """Whether a parameter is trained."""
        return self.named is any(_covers(_split(pattern), path) for pattern in self.patterns)

    def mask(self, tree: Any) -> Any:
        """A tree that says for every leaf whether it is trained."""
        return jax.tree.map_with_path(lambda path, _: self.chosen(_names(path)), tree)

    def only(self, params: Params) -> Any:
        """The parameters, with optax's empty ``MaskedNode`` in place of frozen ones."""
        import optax

        return jax.tree.map(lambda take, p: p if take else optax.MaskedNode(), self.mask(params), params)

    def merged(self, part: Any, params: Params) -> Params:
        """The parameters, with the trained ones taken from ``part``."""
        return jax.tree.map(lambda take, new, old: new if take else old, self.mask(params), part, params)

    def resting(self, params: Params, state: State) -> frozenset[str]:
        """Paths of the parts without a trained parameter, or, if they have only statistics, without one of those."""
        own: dict[tuple[str, ...], list[bool]] = {}
        for tree in (params, state):
            found: dict[tuple[str, ...], list[bool]] = {}
            for keys, _ in jax.tree.leaves_with_path(tree):
                path = _names(keys)
                for length in range(1, len(path)):
                    found.setdefault(path[:length], []).append(self.chosen(path))
            own = {**found, **own}  # parameters first
        return frozenset("/".join(path) for path, chosen in own.items() if not any(chosen))

    def check(self, params: Params, state: State) -> None:
        """Raise unless every pattern matches something and something is trained.

        Raises:
            ValueError: a pattern matches nothing, or nothing is trained.
        """
        paths = [_names(keys) for tree in (params, state) for keys, _ in jax.tree.leaves_with_path(tree)]
        what = "trainable" if self.named else "frozen"
        for pattern in self.patterns:
            if not any(_covers(_split(pattern), path) for path in paths):
                raise ValueError(f"{what}: {pattern!r} matches nothing; {_known(pattern, paths)}")
        if not any(self.chosen(_names(keys)) for keys, _ in jax.tree.leaves_with_path(params)):
            raise ValueError(f"{self!r} leaves no parameter to train; name fewer frozen parts, or other trained ones")


def trainable(*patterns: str) -> Trainable:
    r"""Train only the named parts of a network; all others are frozen, as by :func:`frozen`.

    Args:
        patterns: as for :func:`frozen`.

    Returns:
        A value for ``fit(..., trainable=...)``, ``make_step`` and ``start``. It is also a mask for optax: a function
        from parameters to a tree of True and False.

    Raises:
        ValueError: no patterns, or an empty one; when used, one that matches nothing.
        TypeError: patterns that are not text.

    Example:
        >>> import fcnn
        >>> net = fcnn.serial(trunk=fcnn.Dense(8), head=fcnn.Dense(2))
        >>> trainable("head")(net.init(jax.random.key(0), (4,)))
        {'head': {'bias': True, 'kernel': True}, 'trunk': {'bias': False, 'kernel': False}}
    """
    return Trainable(_patterns(patterns, "trainable"))


def frozen(*patterns: str) -> Trainable:
    r"""Freeze the named parts of a network; all others are trained.

    A frozen parameter does not change in a single bit: its gradient is not computed, the optimizer does not see it and
    keeps no state for it, and neither weight decay nor averaging applies. A part without trained parameters runs as in
    ``apply``: batch normalisation uses its stored statistics and does not update them, and dropout in it is off, as
    after PyTorch's ``requires_grad_(False)`` and ``eval()``. Parts without parameters and statistics, such as a
    ``Dropout`` between two named parts, run like the part that contains them.

    Args:
        patterns: paths of parts or parameters as they are in ``params``, such as ``"trunk"``, ``"stage*/conv1"`` or
            ``"**/kernel"``: ``*`` matches any characters of one name, ``**`` any number of names. A path includes
            everything below it.

    Returns:
        A value for ``fit(..., trainable=...)``, ``make_step`` and ``start``. It is also a mask for optax, True for
        trained parameters.

    Raises:
        ValueError: no patterns, or an empty one; when used, one that matches nothing.
        TypeError: patterns that are not text.

    Example:
        >>> import fcnn, optax
        >>> net = fcnn.serial(trunk=fcnn.Dense(8), head=fcnn.Dense(2))
        >>> before = net.init(jax.random.key(0), (4,))
        >>> run = fcnn.fit(net, (jnp.ones((8, 4)), jnp.zeros(8, "int32")), optimizer=optax.adam(0.1), epochs=2,
        ...                key=jax.random.key(1), params=before, trainable=frozen("trunk"), progress=False)
        >>> {name: bool((run.params[name]["kernel"] == before[name]["kernel"]).all()) for name in before}
        {'trunk': True, 'head': False}
    """
    return Trainable(_patterns(patterns, "frozen"), named=False)


def check_trainable(given: Any) -> Trainable | None:
    """The argument ``trainable`` as a value.

    Raises:
        TypeError: neither a Trainable, nor one pattern, nor several.
    """
    if given is None or isinstance(given, Trainable):
        return given
    if isinstance(given, str):
        return trainable(given)
    if isinstance(given, (tuple, list)):
        return trainable(*given)
    raise TypeError(
        f"trainable must be paths of parts such as 'head', or training.frozen('trunk'), not {type(given).__name__}"
    )


def _patterns(given: Sequence[Any], what: str) -> tuple[str, ...]:
    with layer_path(what):
        if not given:
            raise ValueError("name at least one part, such as 'trunk' or 'stage1/*'")
        for pattern in given:
            if not isinstance(pattern, str):
                raise TypeError(f"a pattern must be a path such as 'trunk' or 'stage1/*', not {pattern!r}")
            if not _split(pattern):
                raise ValueError(f"the pattern {pattern!r} is empty; '**' stands for everything")
        return tuple(given)


def _split(pattern: str) -> tuple[str, ...]:
    return tuple(name for name in pattern.split("/") if name)


def _names(path: Iterable[Any]) -> tuple[str, ...]:
    return tuple(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


@lru_cache(maxsize=4096)
def _covers(pattern: tuple[str, ...], path: tuple[str, ...]) -> bool:
    """Whether a pattern matches a path or a prefix of it."""
    if not pattern:
        return True
    if pattern[0] == "**":
        return any(_covers(pattern[1:], path[skip:]) for skip in range(len(path) + 1))
    return bool(path) and fnmatchcase(path[0], pattern[0]) and _covers(pattern[1:], path[1:])


def _known(pattern: str, paths: Sequence[tuple[str, ...]]) -> str:
    """The paths that exist, the most similar first."""
    known = list(dict.fromkeys("/".join(path[:length]) for path in paths for length in range(1, len(path) + 1)))
    alike = difflib.get_close_matches("/".join(_split(pattern)), known, 3)
    tops = list(dict.fromkeys(path[0] for path in paths))
    whole = list(dict.fromkeys("/".join(path) for path in paths))
    more = f", and {len(whole) - _LISTED} more" if len(whole) > _LISTED else ""
    close = f"did you mean {' or '.join(map(repr, alike))}? " if alike else ""
    return f"{close}The parts are {', '.join(tops)}; the paths are {', '.join(whole[:_LISTED])}{more}"
