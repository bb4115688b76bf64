"""Faces in photographs, found by three small networks with published weights, through ``fcnn.Scan``.

    pip install --no-deps facenet-pytorch scikit-image
    python examples/find_faces.py

The weights are those of the package facenet-pytorch (MIT licence), the photographs are scikit-image's. Neither package
is imported, and PyTorch is not needed: ``interop.from_torch`` reads the files.

The method is a cascade. P-Net says of a patch of 12 x 12 pixels whether it is a face, and where the face's edges are;
``Scan`` asks it at every second pixel of the picture, in a dozen sizes. R-Net looks at what it found, in 24 x 24
pixels, and O-Net at what is left, in 48 x 48; O-Net also places eyes, nose and the corners of the mouth.

The original computes P-Net on whole pictures, in which max pooling goes beyond the edge where height or
width is odd. So it has a last row or column of windows that reach one pixel out of the picture, which a scan does not
have; all others have equal values. Their number, and how many P-Net takes for faces, is in the result.

The measured result, with versions and machine, is benchmarks/results/find_faces.json: the result.json that this command
writes with ``--original``, which runs facenet-pytorch itself as well (it needs PyTorch and torchvision) and compares.

Source:
    Zhang, Zhang, Li and Qiao, "Joint face detection and alignment using multitask cascaded convolutional networks",
    2016; Dubout and Fleuret, "Exact acceleration of linear object detectors", 2012, for all sizes in one picture.
"""

import argparse
import json
import sys
import time
from pathlib import Path
from typing import Any, NamedTuple

import compiled
import installed
import jax
import numpy as np
import photographs
import report

import fcnn

SMALLEST = 20  # pixels; the smallest face that is looked for
FACTOR = 0.709  # from one size of the picture to the next, about the square root of a half
THRESHOLDS = (0.6, 0.7, 0.7)  # probabilities for the three networks
WINDOW, STRIDE = 12, 2  # pixels
BATCH = 64  # patches for the second and third network at a time


def columns_first(x: jax.Array) -> jax.Array:
    """The axes of the space exchanged: the weights are of Caffe for MATLAB, which stores pictures by columns."""
    return x.swapaxes(1, 2)


def prelu() -> fcnn.PReLU:
    """A rectifier with a slope for each channel."""
    return fcnn.PReLU(per_channel=True)


# Each ends in probabilities (no face, face) and in what is to be added to the left, top, right and bottom edge of its
# patch, as parts of its width and height; O-Net has x and y of five landmarks in addition.
PNET = fcnn.serial(
    fcnn.Conv(10, 3), prelu(), fcnn.MaxPool(2, ceil_mode=True),                          # (batch, 5, 5, 10)
    fcnn.Conv(16, 3), prelu(), fcnn.Conv(32, 3), prelu(), fcnn.Flatten(),                # (batch, 32)
    fcnn.branches(face=fcnn.serial(fcnn.Dense(2), jax.nn.softmax), edges=fcnn.Dense(4)),  # (batch, 6)
)  # fmt: skip
RNET = fcnn.serial(
    fcnn.Conv(28, 3), prelu(), fcnn.MaxPool(3, stride=2, ceil_mode=True),                # (batch, 11, 11, 28)
    fcnn.Conv(48, 3), prelu(), fcnn.MaxPool(3, stride=2, ceil_mode=True),                # (batch, 4, 4, 48)
    fcnn.Conv(64, 2), prelu(),                                                           # (batch, 3, 3, 64)
    columns_first, fcnn.Flatten(), fcnn.Dense(128), prelu(),                             # (batch, 128)
    fcnn.branches(face=fcnn.serial(fcnn.Dense(2), jax.nn.softmax), edges=fcnn.Dense(4)),  # (batch, 6)
)  # fmt: skip
ONET = fcnn.serial(
    fcnn.Conv(32, 3), prelu(), fcnn.MaxPool(3, stride=2, ceil_mode=True),                # (batch, 23, 23, 32)
    fcnn.Conv(64, 3), prelu(), fcnn.MaxPool(3, stride=2, ceil_mode=True),                # (batch, 10, 10, 64)
    fcnn.Conv(64, 3), prelu(), fcnn.MaxPool(2, ceil_mode=True),                          # (batch, 4, 4, 64)
    fcnn.Conv(128, 2), prelu(),                                                          # (batch, 3, 3, 128)
    columns_first, fcnn.Flatten(), fcnn.Dense(256), prelu(),                             # (batch, 256)
    fcnn.branches(
        face=fcnn.serial(fcnn.Dense(2), jax.nn.softmax), edges=fcnn.Dense(4), landmarks=fcnn.Dense(10)
    ),                                                                                   # (batch, 16)
)  # fmt: skip
SIDES = {"pnet": (PNET, 12), "rnet": (RNET, 24), "onet": (ONET, 48)}


class Faces(NamedTuple):
    """What was found in a picture, the surest first.

    Attributes:
        boxes: left, top, right and bottom edge in pixels, (faces, 4).
        probabilities: (faces,).
        landmarks: x and y of the eyes, the nose and the corners of the mouth in pixels, (faces, 5, 2).
    """

    boxes: np.ndarray
    probabilities: np.ndarray
    landmarks: np.ndarray


class Level(NamedTuple):
    """A picture in one of its sizes, and what P-Net says of it.

    Attributes:
        scale: how much smaller than the picture.
        shape: height and width in pixels.
        heat: P-Net's outputs, (rows, columns, 6).
    """

    scale: float
    shape: tuple[int, int]
    heat: np.ndarray


def read_weights() -> dict[str, Any]:
    """The params of the three networks, from facenet-pytorch's files."""
    found = {}
    for name, (net, side) in SIDES.items():
        path = installed.file_of("facenet_pytorch", f"data/{name}.pt", distribution="facenet-pytorch")
        last = () if name == "pnet" else "dense1"  # as the original, they flatten with the channels last
        found[name], _ = fcnn.interop.from_torch(net, path, shape=(side, side, 3), channels_last=last)
    return found


# The first network, at every place and in every size


def pyramid(height: int, width: int) -> list[tuple[float, tuple[int, int]]]:
    """The sizes of a picture in which a face of some size has 12 pixels: scales, and height and width of each."""
    scale, found = WINDOW / SMALLEST, []
    side = min(height, width) * scale
    while side >= WINDOW:
        found.append((scale, (int(height * scale + 1), int(width * scale + 1))))
        scale, side = scale * FACTOR, side * FACTOR
    return found


def resized(picture: np.ndarray, height: int, width: int) -> np.ndarray:
    """A picture (height, width, 3) in another size: the mean over what each new pixel touches, in [-1, 1)."""
    rows, columns = means(len(picture), height), means(picture.shape[1], width)
    pixels = np.einsum("ih,hwc,jw->ijc", rows, picture.astype(np.float32), columns, optimize=True)
    return (pixels - 127.5) / 128


def means(n: int, out: int) -> np.ndarray:
    """The matrix (out, n) of means over cells: from the pixel that a cell begins in to the one that it ends in."""
    begin, end = np.arange(out) * n // out, -(-np.arange(1, out + 1) * n // out)
    pixel = np.arange(n)
    inside = (pixel >= begin[:, None]) & (pixel < end[:, None])
    return (inside / (end - begin)[:, None]).astype(np.float32)


SCAN = fcnn.Scan(PNET, WINDOW, stride=STRIDE)
apply_scan = jax.jit(SCAN.apply)


def look_everywhere(params: Any, picture: np.ndarray) -> list[Level]:
    """P-Net at every second pixel of every size of a picture.

    All sizes lie one below the other in one large picture, so that there is one scan. A position of the scan sees its
    window and nothing else, so it makes no difference what lies beside it; windows that lie in two sizes are left out.
    """
    sizes = pyramid(*picture.shape[:2])
    tops = np.cumsum([0, *(height + height % STRIDE for _, (height, _) in sizes)])
    large = np.zeros((tops[-1], sizes[0][1][1], 3), np.float32)
    for top, (_, (height, width)) in zip(tops, sizes, strict=False):
        large[top : top + height, :width] = resized(picture, height, width)
    heat = np.asarray(apply_scan(params, large[None])[0])
    levels = []
    for top, (scale, shape) in zip(tops // STRIDE, sizes, strict=False):
        rows, columns = ((n - WINDOW) // STRIDE + 1 for n in shape)
        levels.append(Level(scale, shape, heat[top : top + rows, :columns]))
    return levels


def candidates(level: Level) -> np.ndarray:
    """Windows of a level that may hold a face: edges in the picture, probability, what to add to the edges, (n, 9)."""
    rows, columns = np.nonzero(level.heat[..., 1] >= THRESHOLDS[0])
    corners = STRIDE * np.stack([columns, rows, columns, rows], axis=1).astype(np.float32)
    edges = np.floor((corners + np.float32([1, 1, WINDOW, WINDOW])) / np.float32(level.scale))
    found = level.heat[rows, columns]
    return np.concatenate([edges, found[:, 1:]], axis=1)


# Boxes


def suppressed(boxes: np.ndarray, scores: np.ndarray, most: float, *, of_smaller: bool = False) -> np.ndarray:
    """Non-maximum suppression: leave out boxes that overlap a surer one too much.

    Args:
        boxes: (n, 4).
        scores: (n,).
        most: the largest overlap that two boxes may have, as a part of their union.
        of_smaller: as a part of the smaller one instead, where edges count as pixels that belong to the box.

    Returns:
        Which are left, the surest first.
    """
    more = float(of_smaller)
    area = (boxes[:, 2:] - boxes[:, :2] + more).prod(1)
    left, kept = np.argsort(-scores, kind="stable"), []
    while len(left):
        best, left = left[0], left[1:]
        kept.append(best)
        first, last = np.maximum(boxes[best, :2], boxes[left, :2]), np.minimum(boxes[best, 2:], boxes[left, 2:])
        common = np.maximum(last - first + more, 0).prod(1)
        both = np.minimum(area[best], area[left]) if of_smaller else area[best] + area[left] - common
        left = left[common / both <= most]
    return np.array(kept, int)


def refined(boxes: np.ndarray, edges: np.ndarray, more: float = 1) -> np.ndarray:
    """Boxes with what a network adds to their edges, in parts of width and height."""
    size = boxes[:, 2:] - boxes[:, :2] + np.float32(more)
    return boxes + edges * np.tile(size, 2)


def squared(boxes: np.ndarray) -> np.ndarray:
    """Squares around the middles of boxes, as wide as their longer side."""
    size = boxes[:, 2:] - boxes[:, :2]
    side = size.max(1, keepdims=True)
    first = boxes[:, :2] + size * np.float32(0.5) - side * np.float32(0.5)
    return np.concatenate([first, first + side], axis=1)


def cut_out(picture: np.ndarray, boxes: np.ndarray, side: int) -> tuple[np.ndarray, np.ndarray]:
    """What lies in boxes, as far as it lies in the picture, (n, side, side, 3), and which boxes hold a pixel of it."""
    height, width = picture.shape[:2]
    left, top, right, bottom = boxes.astype(int).T  # pixels are counted from 1
    left, top, right, bottom = left.clip(1) - 1, top.clip(1) - 1, right.clip(None, width), bottom.clip(None, height)
    there = np.flatnonzero((left < right) & (top < bottom))
    patches = [resized(picture[top[i] : bottom[i], left[i] : right[i]], side, side) for i in there]
    return np.reshape(patches, (-1, side, side, 3)).astype(np.float32), there


# The cascade


def find_faces(params: dict[str, Any], picture: np.ndarray, levels: list[Level]) -> Faces:
    """From P-Net's outputs to faces.

    Args:
        params: of the three networks, by name.
        picture: (height, width, 3), of 0 to 255.
        levels: what P-Net says of it.

    Returns:
        The faces.
    """
    found = [candidates(level) for level in levels]
    found = np.concatenate([of_one[suppressed(of_one[:, :4], of_one[:, 4], 0.5)] for of_one in found])
    found = found[suppressed(found[:, :4], found[:, 4], 0.7)]
    boxes = squared(refined(found[:, :4], found[:, 5:], more=0))

    boxes, probabilities, y = ask("rnet", params, picture, boxes, THRESHOLDS[1])
    kept = suppressed(boxes, probabilities, 0.7)
    boxes = squared(refined(boxes[kept], y[kept, 2:6]))

    boxes, probabilities, y = ask("onet", params, picture, boxes, THRESHOLDS[2])
    size = boxes[:, 2:] - boxes[:, :2] + 1
    landmarks = size[:, None] * y[:, 6:].reshape(-1, 2, 5).swapaxes(1, 2) + boxes[:, None, :2] - 1
    boxes = refined(boxes, y[:, 2:6])
    kept = suppressed(boxes, probabilities, 0.7, of_smaller=True)
    return Faces(boxes[kept], probabilities[kept], landmarks[kept])


def ask(
    name: str, params: dict[str, Any], picture: np.ndarray, boxes: np.ndarray, threshold: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes that a network takes for faces, with probabilities and all its outputs."""
    net, side = SIDES[name]
    patches, there = cut_out(picture, boxes, side)
    if not len(there):
        return boxes[:0], np.zeros(0, np.float32), np.zeros((0, 6 if name == "rnet" else 16), np.float32)
    whole = np.pad(patches, ((0, -len(patches) % BATCH), (0, 0), (0, 0), (0, 0)))  # whole batches: one compilation
    y = fcnn.predict(net, params[name], whole, batch_size=BATCH)
    y, sure = y[: len(there)], y[: len(there), 1] > threshold
    return boxes[there[sure]], y[sure, 1], y[sure]


# The original


def original(picture: np.ndarray) -> Faces:
    """What facenet-pytorch itself finds."""
    from facenet_pytorch import MTCNN

    detector = MTCNN(keep_all=True, min_face_size=SMALLEST, thresholds=list(THRESHOLDS), factor=FACTOR)
    boxes, probabilities, landmarks = detector.detect(picture, landmarks=True)
    order = np.argsort(-probabilities.astype(float), kind="stable")
    return Faces(*(np.asarray(part, np.float32)[order] for part in (boxes, probabilities, landmarks)))


def over_the_edge(params: Any, picture: np.ndarray) -> dict[str, int]:
    """The windows that reach a pixel out of the picture, which only the original has, and those taken for faces."""
    whole, converted = fcnn.fully_convolutional(PNET, params, (WINDOW, WINDOW, 3))
    windows = faces = 0
    for _, shape in pyramid(*picture.shape[:2]):
        y = np.asarray(jax.jit(whole.apply)(converted, resized(picture, *shape)[None])[0, ..., 1])
        outside = np.ones(y.shape, bool)
        outside[tuple(slice((n - WINDOW) // STRIDE + 1) for n in shape)] = False
        windows, faces = windows + int(outside.sum()), faces + int((y[outside] >= THRESHOLDS[0]).sum())
    return {"windows": windows, "taken_for_faces": faces}


def differences(found: Faces, theirs: Faces) -> dict[str, Any]:
    """How far each face is from the nearest that the original found, at most."""
    result: dict[str, Any] = {"faces": len(found.boxes), "faces_of_the_original": len(theirs.boxes)}
    if len(found.boxes) != len(theirs.boxes):
        return result
    nearest = np.abs(found.boxes[:, None] - theirs.boxes).max(-1).argmin(1)
    result["one_to_one"] = len(set(nearest.tolist())) == len(nearest)
    for name in Faces._fields:
        result[name] = float(np.abs(getattr(found, name) - getattr(theirs, name)[nearest]).max(initial=0))
    return result


# Pictures of the result


def draw(picture: np.ndarray, faces: Faces, levels: list[Level], path: Path) -> None:
    """Draw the faces in a picture, and beside it P-Net's probabilities at four of the sizes."""
    from matplotlib.figure import Figure

    height, width = picture.shape[:2]
    figure = Figure(figsize=(9.6 * width / height + 1.2, 5.2), layout="compressed")
    axes = figure.subplot_mosaic([["all", 1, 3], ["all", 5, 7]], width_ratios=(2, 1, 1))
    axes["all"].imshow(picture)
    for (x, y, x_end, y_end), probability, landmarks in zip(*faces, strict=True):
        axes["all"].plot([x, x_end, x_end, x, x], [y, y, y_end, y_end, y], color="lime", linewidth=1.5)
        axes["all"].plot(*landmarks.T, "o", color="gold", markersize=max(1.5, (x_end - x) / 25))
        label = {"fontsize": 8, "color": "black", "bbox": {"facecolor": "lime", "edgecolor": "none", "pad": 1}}
        axes["all"].text(max(x, 2), max(y - 4, 10), f"{probability:.4f}", va="bottom", **label)
    axes["all"].set(xlim=(0, width), ylim=(height, 0), title="faces, landmarks and O-Net's probabilities")
    heat = [axes[i] for i in (1, 3, 5, 7)]
    shown: Any = None
    for part, level in zip(heat, levels[1:9:2], strict=True):
        shown = part.imshow(level.heat[..., 1], vmin=0, vmax=1, cmap="magma")
        part.set_title(f"P-Net, faces of {WINDOW / level.scale:.0f} pixels", fontsize=9)
    for part in axes.values():
        part.axis("off")
    figure.colorbar(shown, ax=heat, shrink=0.8, pad=0.02, label="probability of a face, at every window")
    figure.savefig(path, dpi=100)


def main() -> int:
    """Find the faces in both pictures, draw them, and compare with the original where that is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, default=Path("runs/find_faces"), help="folder for result.json and pictures")
    parser.add_argument("--original", action="store_true", help="run facenet-pytorch as well, and compare")
    options = parser.parse_args()
    try:
        params, pictures = read_weights(), {name: make() for name, make in photographs.PICTURES.items()}
    except FileNotFoundError as error:
        print(f"cannot read the weights or pictures: {error}", file=sys.stderr)
        return 1
    options.out.mkdir(parents=True, exist_ok=True)
    result: dict[str, Any] = {}
    for name, picture in pictures.items():
        begun = time.perf_counter()
        levels = look_everywhere(params["pnet"], picture)
        faces = find_faces(params, picture, levels)
        seconds = time.perf_counter() - begun
        print(f"{name}: {len(faces.boxes)} faces, {seconds:.1f} seconds with compilation", flush=True)
        result[name] = {"shape": picture.shape, "seconds": round(seconds, 2), "sizes": len(levels)}
        result[name]["windows"] = sum(level.heat[..., 0].size for level in levels)
        result[name]["found"] = {part: np.round(value, 6).tolist() for part, value in faces._asdict().items()}
        if options.original:
            theirs = original(picture)
            result[name]["original"] = {part: np.round(value, 6).tolist() for part, value in theirs._asdict().items()}
            result[name]["largest_difference"] = differences(faces, theirs)
            result[name]["over_the_edge"] = over_the_edge(params["pnet"], picture)
            print(f"  against the original: {result[name]['largest_difference']}")
        draw(picture, faces, levels, options.out / f"{name}.png")
    used = installed.versions("facenet-pytorch", "scikit-image", "numpy", "pillow")
    if options.original:
        used |= installed.versions("torch")
    path = options.out / "result.json"
    path.write_text(json.dumps({"pictures": result, "packages": used, **report.provenance()}, indent=2) + "\n")
    print(f"written: {path.resolve()}")
    return 0


if __name__ == "__main__":
    compiled.keep()
    sys.exit(main())
