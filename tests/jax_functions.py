"""Every public function of jax.numpy and jax.nn with arguments to call it with, or the reason why there are none."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax import lax

_random = np.random.default_rng(0)
X, Y = _random.uniform(0.1, 0.9, (2, 3, 4))
SQUARE = _random.uniform(0.1, 0.9, (3, 3))
PICKED = np.array([0, 2, 1])
B = X > 0.5
PIXELS = _random.normal(size=(2, 6, 5, 4))

#: arguments, and the functions that take them; arrays are traced, all else is not
ARGUMENTS = (
    (
        lambda: (X,),
        """
        jnp.abs jnp.absolute jnp.acos jnp.all jnp.amax jnp.amin jnp.angle jnp.any jnp.arccos jnp.arcsin
        jnp.arcsinh jnp.arctan jnp.arctanh jnp.argmax jnp.argmin jnp.argsort jnp.around jnp.array jnp.asarray
        jnp.asin jnp.asinh jnp.atan jnp.atanh jnp.atleast_1d jnp.atleast_2d jnp.atleast_3d jnp.average
        jnp.broadcast_arrays jnp.cbrt jnp.ceil jnp.clip jnp.column_stack jnp.conj jnp.conjugate jnp.copy
        jnp.corrcoef jnp.cos jnp.cosh jnp.count_nonzero jnp.cov jnp.cumprod jnp.cumsum jnp.deg2rad jnp.degrees
        jnp.diag jnp.diagflat jnp.diagonal jnp.diff jnp.dstack jnp.ediff1d jnp.exp jnp.exp2 jnp.expm1 jnp.fabs
        jnp.flip jnp.fliplr jnp.flipud jnp.floor jnp.gradient jnp.histogram jnp.histogram_bin_edges
        jnp.histogramdd jnp.hstack jnp.i0 jnp.imag jnp.iscomplex jnp.isfinite jnp.isinf jnp.isnan jnp.isneginf
        jnp.isposinf jnp.isreal jnp.lexsort jnp.log jnp.log10 jnp.log1p jnp.log2 jnp.logical_not
        jnp.matrix_transpose jnp.max jnp.mean jnp.median jnp.min jnp.minmax jnp.modf jnp.nan_to_num
        jnp.nanargmax jnp.nanargmin jnp.nancumprod jnp.nancumsum jnp.nanmax jnp.nanmean jnp.nanmedian jnp.nanmin
        jnp.nanprod jnp.nanstd jnp.nansum jnp.nanvar jnp.negative jnp.ones_like jnp.positive jnp.prod jnp.ptp
        jnp.rad2deg jnp.radians jnp.ravel jnp.real jnp.reciprocal jnp.rint jnp.rot90 jnp.round jnp.sign
        jnp.signbit jnp.sin jnp.sinc jnp.sinh jnp.sort jnp.sort_complex jnp.spacing jnp.sqrt jnp.square
        jnp.squeeze jnp.std jnp.sum jnp.tan jnp.tanh jnp.trace jnp.transpose jnp.trapezoid jnp.tril
        jnp.tril_indices_from jnp.triu jnp.triu_indices_from jnp.trunc jnp.unstack jnp.unwrap jnp.var jnp.vstack
        jnp.zeros_like nn.celu nn.elu nn.gelu nn.glu nn.hard_sigmoid nn.hard_silu nn.hard_swish nn.hard_tanh
        nn.identity nn.leaky_relu nn.log1mexp nn.log_sigmoid nn.log_softmax nn.logmeanexp nn.logsumexp nn.mish
        nn.relu nn.relu6 nn.selu nn.sigmoid nn.silu nn.soft_sign nn.softmax nn.softplus nn.sparse_plus
        nn.sparse_sigmoid nn.squareplus nn.standardize nn.swish nn.tanh fft.fft fft.fft2 fft.fftn fft.fftshift
        fft.hfft fft.ifft fft.ifft2 fft.ifftn fft.ifftshift fft.ihfft fft.irfft fft.irfft2 fft.irfftn fft.rfft
        fft.rfft2 fft.rfftn linalg.diagonal linalg.matrix_norm linalg.matrix_transpose linalg.norm linalg.trace
        linalg.vector_norm
    """,
    ),
    (
        lambda: (X, Y),
        """
        jnp.add jnp.allclose jnp.append jnp.arctan2 jnp.array_equal jnp.array_equiv jnp.atan2 jnp.copysign
        jnp.divide jnp.divmod jnp.equal jnp.float_power jnp.floor_divide jnp.fmax jnp.fmin jnp.fmod
        jnp.full_like jnp.geomspace jnp.greater jnp.greater_equal jnp.heaviside jnp.hypot jnp.inner jnp.isclose
        jnp.isin jnp.kron jnp.less jnp.less_equal jnp.linspace jnp.logaddexp jnp.logaddexp2 jnp.logical_and
        jnp.logical_or jnp.logical_xor jnp.logspace jnp.matvec jnp.maximum jnp.minimum jnp.mod jnp.multiply
        jnp.nextafter jnp.not_equal jnp.outer jnp.polyadd jnp.polysub jnp.polyval jnp.pow jnp.power
        jnp.remainder jnp.subtract jnp.tensordot jnp.true_divide jnp.vdot jnp.vecdot linalg.tensordot
        linalg.vecdot
    """,
    ),
    (
        lambda: (X, Y, X),
        """
        jnp.where nn.dot_product_attention
    """,
    ),
    (
        lambda: (X[0],),
        """
        jnp.cumulative_prod jnp.cumulative_sum jnp.ix_ jnp.meshgrid jnp.poly jnp.polyder jnp.polyint jnp.vander
    """,
    ),
    (
        lambda: (X[0], Y[0]),
        """
        jnp.convolve jnp.correlate jnp.dot jnp.histogram2d jnp.matmul jnp.nanpercentile jnp.nanquantile
        jnp.percentile jnp.polydiv jnp.polymul jnp.quantile jnp.unravel_index linalg.matmul linalg.outer
    """,
    ),
    (
        lambda: (X, 1),
        """
        jnp.argpartition jnp.array_split jnp.delete jnp.expand_dims jnp.hsplit jnp.pad jnp.partition jnp.repeat
        jnp.resize jnp.rollaxis jnp.split jnp.take jnp.tile jnp.top_k jnp.vsplit nn.one_hot
    """,
    ),
    (
        lambda: (X, (1, 0)),
        """
        jnp.permute_dims
    """,
    ),
    (
        lambda: (PICKED,),
        """
        jnp.bitwise_count jnp.bitwise_invert jnp.bitwise_not jnp.invert jnp.packbits
    """,
    ),
    (
        lambda: (PICKED, PICKED),
        """
        jnp.bitwise_and jnp.bitwise_left_shift jnp.bitwise_or jnp.bitwise_right_shift jnp.bitwise_xor jnp.cross
        jnp.gcd jnp.lcm jnp.left_shift jnp.right_shift jnp.take_along_axis linalg.cross
    """,
    ),
    (
        lambda: (SQUARE,),
        """
        jnp.diag_indices_from linalg.det
    """,
    ),
    (
        lambda: (SQUARE, SQUARE),
        """
        jnp.vecmat
    """,
    ),
    (
        lambda: (X, 2, 0),
        """
        jnp.insert
    """,
    ),
    (
        lambda: (X, 0, 1),
        """
        jnp.moveaxis jnp.swapaxes
    """,
    ),
    (
        lambda: (4,),
        """
        jnp.arange jnp.bartlett jnp.blackman jnp.diag_indices jnp.eye jnp.hamming jnp.hanning jnp.identity
        jnp.ones jnp.tri jnp.tril_indices jnp.triu_indices jnp.zeros fft.fftfreq fft.rfftfreq
    """,
    ),
    (
        lambda: ((2, 3),),
        """
        jnp.indices
    """,
    ),
    (
        lambda: (0.0, 1.0),
        """
        jnp.kaiser
    """,
    ),
)

#: functions that take arguments of their own, called on X, or on X and Y
EXAMPLES = {
    "jnp.acosh": lambda x: jnp.acosh(1 + x),
    "jnp.apply_along_axis": lambda x: jnp.apply_along_axis(lambda row: jnp.sort(row) * row, 1, x),
    "jnp.apply_over_axes": lambda x: jnp.apply_over_axes(jnp.sum, x, (0, 1)),
    "jnp.arccosh": lambda x: jnp.arccosh(1 + x),
    "jnp.argwhere": lambda x: jnp.argwhere(x > 0.5, size=12) * x[0, 0],
    "jnp.astype": lambda x: jnp.astype(3 * x, jnp.int8) * x,
    "jnp.bincount": lambda x: jnp.bincount(PICKED, x[:, 0], length=4),
    "jnp.block": lambda x: jnp.block([[x, x], [2 * x, x]]),
    "jnp.broadcast_to": lambda x: jnp.broadcast_to(x, (2, 3, 4)),
    "jnp.choose": lambda x, y: jnp.choose(np.array([0, 1, 1, 0]), [x, y], mode="clip"),
    "jnp.compress": lambda x: jnp.compress(np.array([True, False, True]), x, 0, size=2),
    "jnp.concat": lambda x, y: jnp.concat([x, y], axis=1),
    "jnp.concatenate": lambda x, y: jnp.concatenate([x, y]),
    "jnp.digitize": lambda x: jnp.digitize(x, np.array([0.2, 0.6])) * x,
    "jnp.dsplit": lambda x: jnp.dsplit(x[None], 2),
    "jnp.einsum": lambda x, y: jnp.einsum("ij,kj->ik", x, y),
    "jnp.extract": lambda x: jnp.extract(x > 0.5, x, size=5),
    "jnp.fill_diagonal": lambda x: jnp.fill_diagonal(x, x[0, 1], inplace=False),
    "jnp.flatnonzero": lambda x: jnp.flatnonzero(x > 0.5, size=12) * x.ravel(),
    "jnp.fromfunction": lambda x: jnp.fromfunction(lambda i, j: i * x + j, (3, 4)),
    "jnp.frompyfunc": lambda x, y: jnp.frompyfunc(jnp.multiply, 2, 1, identity=1)(x, y),
    "jnp.full": lambda x: jnp.full((2, 2), x[0, 0]),
    "jnp.interp": lambda x, y: jnp.interp(x, jnp.sort(y.ravel()), x.ravel()),
    "jnp.intersect1d": lambda x: jnp.intersect1d(x[0], x[:, 0], size=2, fill_value=0),
    "jnp.piecewise": lambda x: jnp.piecewise(x, [x < 0.3, x > 0.6], [jnp.sin, jnp.cos, 2.0]),
    "jnp.place": lambda x, y: jnp.place(x, B, y.ravel(), inplace=False),
    "jnp.put": lambda x, y: jnp.put(x, PICKED, y[0, :3], inplace=False),
    "jnp.put_along_axis": lambda x, y: jnp.put_along_axis(x, PICKED[:, None], y[:, :1], 1, inplace=False),
    "jnp.ravel_multi_index": lambda x: jnp.ravel_multi_index((PICKED, PICKED), (3, 4), mode="clip") * x[0, :3],
    "jnp.reshape": lambda x: jnp.reshape(x, (2, 6), order="F"),
    "jnp.roll": lambda x: jnp.roll(x, (1, -2), (0, 1)),
    "jnp.searchsorted": lambda x: jnp.searchsorted(np.array([0.2, 0.6]), x) * x,
    "jnp.select": lambda x, y: jnp.select([x > 0.6, y > 0.5], [x, y], 3.0),
    "jnp.setdiff1d": lambda x, y: jnp.setdiff1d(x[0], y[0], size=4, fill_value=0),
    "jnp.setxor1d": lambda x, y: jnp.setxor1d(x[0], y[0], size=8, fill_value=0),
    "jnp.stack": lambda x, y: jnp.stack([x, y], 1),
    "jnp.union1d": lambda x, y: jnp.union1d(x[0], y[0], size=8),
    "jnp.unique": lambda x: jnp.unique(x, size=12),
    "jnp.unique_all": lambda x: jnp.unique_all(x, size=12)[0],
    "jnp.unique_counts": lambda x: jnp.unique_counts(x, size=12)[0],
    "jnp.unique_inverse": lambda x: jnp.unique_inverse(x, size=12)[0],
    "jnp.unique_values": lambda x: jnp.unique_values(x, size=12),
    "jnp.unpackbits": lambda x: jnp.unpackbits((x * 200).astype(jnp.uint8)) * x[0, 0],
    "jnp.nonzero": lambda x: jnp.nonzero(x > 0.5, size=12)[1] * x.ravel(),
    "jnp.vectorize": lambda x: jnp.vectorize(lambda row: jnp.cumsum(row), signature="(n)->(n)")(x),
    "linalg.multi_dot": lambda x, y: jnp.linalg.multi_dot([x, y.T, x]),
    "linalg.matrix_power": lambda x: jnp.linalg.matrix_power(x[:, :3], 3),
    # the same by other ways than the function's first: axes, modes, orders, edges
    "jnp.nextafter": lambda x, y: jnp.nextafter(lax.stop_gradient(x), lax.stop_gradient(y)) * y,
    "jnp.spacing": lambda x: jnp.spacing(lax.stop_gradient(x)) + x,
    "nn.one_hot": lambda x: jax.nn.one_hot(PICKED, 4, dtype=x.dtype) * x,
    "jnp.pad": lambda x: [
        jnp.pad(x, ((1, 2), (0, 3)), mode=mode)
        for mode in ("constant", "edge", "reflect", "symmetric", "wrap", "mean", "maximum", "linear_ramp")
    ],
    "jnp.take": lambda x: [jnp.take(x, np.array([0, 7, -1]), 1, mode=mode) for mode in ("fill", "clip", "wrap")],
    "jnp.clip": lambda x, y: jnp.clip(x, 0.3, y),
    "jnp.cumsum": lambda x: (jnp.cumsum(x, 1), lax.cumsum(x, 0, reverse=True)),
    "jnp.cumprod": lambda x: (jnp.cumprod(x, 1), lax.cumprod(x, 1, reverse=True)),
    "jnp.sort": lambda x: (jnp.sort(x, 0), jnp.sort(x, None), jnp.sort(x, descending=True)),
    "jnp.prod": lambda x: (jnp.prod(x), jnp.prod(x, 0), jnp.prod(x * (x > 0.3), 1)),
    "jnp.power": lambda x, y: (x**y, x**3, x**-2, x**0.5, 2.0**y, x ** np.array([0, 1, 2, -1])),
    "jnp.mod": lambda x, y: (jnp.mod(5 * x, y), jnp.mod(-5 * x, y), jnp.fmod(-5 * x, y), lax.rem(-5 * x, y)),
}

#: functions without arguments here, each with the reason
_REASONS = {
    "computes nothing with arrays that are traced: texts, files, types, shapes": """
        array_repr array_str broadcast_shapes can_cast einsum_path from_dlpack frombuffer fromfile fromiter fromstring
        get_printoptions iscomplexobj isdtype isrealobj isscalar issubdtype iterable load ndim printoptions
        promote_types result_type save savez set_printoptions shape size
    """,
    "what it holds is not defined": "empty empty_like",
    "the shape of its result depends on values": "mask_indices trim_zeros",
    "takes numbers apart into bits, where no derivative is to be seen": "frexp ldexp",
    "a decomposition of a matrix": """
        polyfit roots linalg.cholesky linalg.cond linalg.eig linalg.eigh linalg.eigvals linalg.eigvalsh linalg.inv
        linalg.lstsq linalg.matrix_rank linalg.pinv linalg.qr linalg.slogdet linalg.solve linalg.svd linalg.svdvals
        linalg.tensorinv linalg.tensorsolve
    """,
    "computes its softmax in float32 whatever it is given": "nn.dot_product_attention",
    "made for one kind of hardware": "nn.get_scaled_dot_general_config nn.scaled_dot_general nn.scaled_matmul",
}
WITHOUT = {name: why for why, names in _REASONS.items() for name in names.split()}


@jax.custom_jvp
def own_rule(x):
    return jnp.sin(x) * x


own_rule.defjvp(
    lambda primals, tangents: (own_rule(*primals), tangents[0] * (jnp.cos(*primals) * primals[0] + jnp.sin(*primals)))
)


@jax.custom_vjp
def own_backward(x):
    return x**2


own_backward.defvjp(lambda x: (x**2, x), lambda x, g: (2 * x * g,))


def convolved(x, y, kernel=(3, 2), groups=1, batch_groups=1, **options):
    """A convolution of constants scaled by what is traced."""
    shape = (4 // groups, 4 * batch_groups, *kernel)
    weights = jnp.cos(jnp.arange(np.prod(shape), dtype=x.dtype)).reshape(shape) * y[0, 0]
    numbers = lax.conv_dimension_numbers(PIXELS.shape, shape, ("NHWC", "IOHW", "NWHC"))
    options = {"window_strides": (1, 1), "padding": "SAME", **options}
    return lax.conv_general_dilated(
        PIXELS * x[0, 0], weights, dimension_numbers=numbers, feature_group_count=groups,
        batch_group_count=batch_groups, **options,
    )  # fmt: skip


def windowed(x, start, combine, **dilations):
    padding = ((1, 0), (0, 2))
    return lax.reduce_window(x, start, combine, (2, 2), (1, 2), padding, **dilations)


#: what jax.numpy does not reach, or not in all its forms
LAX = {
    "reduce_window": lambda x: (
        windowed(x, 0.0, lax.add, base_dilation=(2, 1), window_dilation=(1, 2)),
        windowed(x, -np.inf, lax.max),
        windowed(x, np.inf, lax.min),
    ),
    "conv": lambda x, y: (
        convolved(x, y),
        convolved(x, y, padding=((2, -1), (0, 1)), window_strides=(2, 3)),
        convolved(x, y, lhs_dilation=(2, 1), rhs_dilation=(1, 2), padding=((1, 0), (0, 2))),
        convolved(x, y, groups=2),
        convolved(x, y, batch_groups=2),
    ),
    "dynamic slices": lambda x, y: (
        lax.dynamic_slice(x, (1, 7), (2, 3)),
        lax.dynamic_update_slice(x, y[:2, :2], (jnp.argmax(y[0]), -1)),
        x[jnp.argmax(y[:, 0])],
    ),
    "writing": lambda x, y: (
        x.at[PICKED].set(y),
        x.at[PICKED, PICKED].add(y[0, :3]),
        x.at[PICKED].subtract(y),
        x.at[1, 2].multiply(y[0, 0]),
        x.at[np.array([0, 0, 1])].max(y),
        x.at[np.array([2, 2, 1])].min(y),
        x.at[np.array([0, 9])].add(y[:2]),
        x.at[np.array([0, 9])].set(y[:2], mode="clip"),
        x.at[:, ::2].set(y[:, :2]),
        x.at[B].set(0.0),
        x.at[np.array([1, 1])].set(3.0),
        jax.ops.segment_sum(x, np.array([1, 0, 1]), 2),
        x.at[PICKED].multiply(y, unique_indices=True),
    ),
    "reading": lambda x: (
        x.at[np.array([0, 9])].get(mode="fill", fill_value=2.0),
        x.at[np.array([0, 9])].get(mode="clip"),
        x[PICKED[:, None], np.array([[0, 3]])],
        x[..., None, PICKED],
        x[B.argmax(1), 1:3],
        jax.vmap(lambda r, i: r[i])(x, PICKED),
        jnp.take_along_axis(x, np.array([[3, 0], [1, 1], [2, 0]]), 1),
    ),
    "writing by example": lambda x, y: jax.vmap(lambda row, i, new: row.at[i].add(new))(x, PICKED, y[:, 0]),
    "running": lambda x: (
        lax.cumlogsumexp(x, 1),
        lax.cumlogsumexp(x, 0, reverse=True),
        lax.cummax(x, 1),
        lax.cummin(x, 0, reverse=True),
        lax.associative_scan(jnp.multiply, x, axis=1),
        lax.cumprod(x * (x > 0.3), 1),
    ),
    "padding": lambda x: (lax.pad(x, x[0, 0], ((1, -1, 2), (-2, 3, 0))), lax.pad(x, 0.0, ((-1, -2, 0), (0, 0, 1)))),
    "clamp": lambda x, y: (
        lax.clamp(0.3, x, 0.6),
        lax.clamp(x, y, x + 0.2),
        lax.clamp(0.2, y, 0.8),
    ),
    "order": lambda x, y: (
        lax.top_k(x, 2),
        lax.sort((x, y, x * y), dimension=0, num_keys=1),
        lax.sort((jnp.round(x), y), num_keys=2),
    ),
    "precision": lambda x: lax.reduce_precision(x, 5, 10),
    "rounding": lambda x: (
        lax.round(5 * x, lax.RoundingMethod.AWAY_FROM_ZERO),
        lax.round(np.array([0.5, -2.5, 1.5]) + 0 * x[0, 0]),
        lax.round(np.array([0.5, -2.5, 1.4]), lax.RoundingMethod.AWAY_FROM_ZERO),
        jnp.floor(9 * x) * x,
    ),
    "single numbers": lambda x, y: (
        lax.integer_pow(x, -3),
        lax.integer_pow(x, 0),
        lax.rsqrt(x),
        lax.cbrt(-x),
        lax.exp2(x),
        lax.tan(x),
        lax.nextafter(X, Y) * x,
        lax.atan2(x, -y),
        lax.erf(x),
        lax.erfc(x),
        lax.erf_inv(x),
        lax.lgamma(-x),
        lax.digamma(x),
        lax.polygamma(jnp.ones_like(x), x),
        lax.zeta(2 + jnp.ones_like(x), lax.stop_gradient(x)),
        lax.bessel_i0e(-x),
        lax.bessel_i1e(x),
        lax.is_finite(x) * x,
        lax.sign(-x),
        lax.stop_gradient(x) * x,
    ),
    "whole numbers": lambda x: (
        lax.div(np.array([7, -7, 7, -7, 3]), np.array([2, 2, -2, -2, 5])) * x[0, 0],
        lax.rem(np.array([7, -7, 7, -7, 3]), np.array([2, 2, -2, -2, 5])) * x[0, 0],
        lax.shift_right_logical((9 * x).astype(jnp.int32) - 5, jnp.int32(1)),
        lax.shift_left((9 * x).astype(jnp.uint8), jnp.uint8(6)),
        lax.shift_right_arithmetic((9 * x).astype(jnp.int32) - 5, jnp.int32(1)),
        lax.clz((99 * x).astype(jnp.int32)) * x,
        lax.population_count((99 * x).astype(jnp.int32)),
        ~(9 * x).astype(jnp.int32),
        (9 * x).astype(jnp.int32) ** 3,
        (x > 0.5) & (x < 0.8) | ~(x > 0.2),
        jnp.argmin(x, 1),
        (300 * x).astype(jnp.uint8),
        (-x / 0).astype(jnp.int32),
        jnp.max((9 * x).astype(jnp.int32), 0),
        jnp.sum((9 * x).astype(jnp.int8), 1),
        jnp.any(x > 0.8, 1),
        lax.dot_general(
            (99 * x).astype(jnp.int8),
            (99 * x).astype(jnp.int8),
            (((1,), (1,)), ((), ())),
            preferred_element_type=jnp.int32,
        ),
    ),
    "complex numbers": lambda x, y: (
        jnp.abs(lax.complex(x, y)),
        jnp.exp(lax.complex(x, y)),
        jnp.real(lax.complex(x, y) ** 2),
        jnp.conj(lax.complex(x, y)) * lax.complex(y, x),
        jnp.angle(lax.complex(x, y)),
        jnp.fft.irfft(lax.complex(x, y), 7),
        jnp.fft.irfft2(lax.complex(x, y)),
        jnp.fft.rfft(x, 5),
        jnp.fft.ifft2(lax.complex(x, y)).imag,
        jnp.fft.hfft(lax.complex(x, y)),
    ),
    "calls": lambda x: (
        jax.jit(jnp.sin)(x),
        jax.checkpoint(lambda v: jax.jit(jnp.tanh)(v) * v)(x),
        own_rule(x),
        own_backward(x),
        lax.optimization_barrier((x, 2 * x)),
        jax.named_call(jnp.cos)(x),
        jax.nn.relu(x - 0.5),
        jax.nn.relu6(12 * x - 3),
        jax.device_put(x),
    ),
    "composite, with stop_gradient": lambda x: lax.composite(lambda v: v * 2, "a.b")(lax.stop_gradient(x)) + x,
    "choices": lambda x: (
        lax.cond(x[0, 0] > 0.5, jnp.sin, jnp.cos, x),
        lax.switch(jnp.int32(9 * x[0, 0]) % 3, [jnp.sin, jnp.cos, jnp.exp], x),
        jax.vmap(lambda v: lax.cond(v > 0.5, jnp.sin, jnp.cos, v))(x[0]),
        lax.platform_dependent(x, cpu=jnp.sin, default=jnp.cos),
    ),
    "loops": lambda x, y: (
        lax.scan(lambda c, row: (c * row + y[0], (c, row.sum())), x[0], x),
        lax.scan(lambda c, row: (jnp.tanh(c + row), c), x[0], y, reverse=True),
        lax.fori_loop(0, 3, lambda i, c: c * x + i, y),
        lax.map(lambda row: row / row.sum(), x),
        lax.scan(lambda c, _: (c * y, None), x, None, length=0),
        jnp.polyval(x[0], y),
        lax.scan(lambda c, row: (c, row), x, y[:0]),
    ),
    "folding": lambda x, y: (
        lax.reduce((x, y), (0.0, 1.0), lambda a, b: (a[0] + b[0], a[1] * b[1]), (0,)),
        lax.reduce((x, y), (0.0, 1.0), lambda a, b: (a[0] + b[0], a[1] * b[1]), (1, 0)),
    ),
    "constants that JAX makes": lambda x: x * jax.random.normal(jax.random.key(3), (3, 4)),
    "infinite slopes that nothing depends on": lambda x: (
        x * 2,
        [jnp.sqrt(x - x), x][1],
        jnp.sin(lax.stop_gradient(jnp.sqrt(x - x))),
    ),
}


def public():
    """The public functions of jax.numpy, jax.nn, jax.numpy.fft and jax.numpy.linalg, by name."""
    found = {}
    for module, prefix in ((jnp, "jnp"), (jax.nn, "nn"), (jnp.fft, "fft"), (jnp.linalg, "linalg")):
        for name in dir(module):
            value = getattr(module, name)
            if not name.startswith("_") and callable(value) and not isinstance(value, type):
                found[f"{prefix}.{name}"] = value
    return found


def examples():
    """By name, a function of arrays and the arrays."""
    here, found = public(), {}
    for arguments, names in ARGUMENTS:
        for name in set(names.split()) & set(here):
            leaves, form = jax.tree.flatten(arguments())
            arrays = [leaf for leaf in leaves if isinstance(leaf, np.ndarray)]
            found[name] = partial(_call, here[name], leaves, form), arrays
    for name, function in {**EXAMPLES, **LAX}.items():
        if function is not None and (name in here or name in LAX):
            found[name] = function, [X, Y][: function.__code__.co_argcount]
    return found


def _call(function, leaves, form, *arrays):
    given = iter(arrays)
    return function(
        *jax.tree.unflatten(form, [next(given) if isinstance(leaf, np.ndarray) else leaf for leaf in leaves])
    )
