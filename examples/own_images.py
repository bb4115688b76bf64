"""Train on a folder of your own pictures, and name those in another.

    python examples/own_images.py PICTURES [--size 64] [--epochs 30] [--name OTHER_PICTURES] [--out runs/own_images]
    python examples/own_images.py --demo      # makes a folder of circles, squares and triangles first

PICTURES has a folder for each class, as ``cats/1.jpg, cats/2.png, dogs/a.jpg``; every fifth or so is kept for testing,
or those in ``test/`` where there are ``train/`` and ``test/``. A few dozen pictures of each class are a beginning.
Written into the output folder: weights.safetensors with the classes beside it in classes.json, the learning curve,
and the mistakes as a picture. Ctrl-C saves; ``--resume`` goes on.
"""

import argparse
import json
import sys
from pathlib import Path

import compiled
import jax
import numpy as np
import optax

import fcnn
from fcnn.data import augment


def network(classes: int) -> fcnn.Layer:
    """Four steps of two convolutions and a half; any size of picture from 32 pixels on."""

    def block(features: int) -> fcnn.Layer:
        return fcnn.serial(
            fcnn.Conv(features, 3, padding="SAME", bias=False), fcnn.BatchNorm(), jax.nn.relu,
            fcnn.residual(fcnn.serial(
                fcnn.Conv(features, 3, padding="SAME", bias=False), fcnn.BatchNorm(), jax.nn.relu,
            )),
            fcnn.MaxPool(2),
        )  # fmt: skip

    return fcnn.serial(
        block(16), block(32), block(64), block(128),  # (batch, size / 16, size / 16, 128)
        fcnn.GlobalAvgPool(), fcnn.Dropout(0.2), fcnn.Dense(classes),
    )  # fmt: skip


def main() -> int:
    """Read, train, evaluate, write; name what is in another folder."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pictures", nargs="?", type=Path, help="folder with a folder of pictures for each class")
    parser.add_argument("--demo", action="store_true", help="make a folder of simple shapes and use that")
    parser.add_argument("--size", type=int, default=64, help="pictures are made so many pixels high and wide")
    parser.add_argument("--epochs", type=int, default=30)
    parser.add_argument("--name", type=Path, default=None, help="folder of pictures to name with the trained network")
    parser.add_argument("--out", type=Path, default=Path("runs/own_images"))
    parser.add_argument("--resume", action="store_true", help="go on where the last run in --out was stopped")
    options = parser.parse_args()
    if options.demo:
        options.pictures = shapes(options.out / "shapes")
    if options.pictures is None:
        parser.error("give a folder of pictures, or --demo")
    if options.size < 32 or options.epochs < 1:
        parser.error("--size must be at least 32, --epochs at least 1")

    try:
        data = fcnn.data.load_image_folder(options.pictures, size=options.size)
    except (OSError, ValueError, ImportError) as error:
        print(f"cannot read the pictures: {error}", file=sys.stderr)
        return 1
    (x, _), (x_test, y_test) = data.train, data.test
    print(f"{len(x):,} pictures to train on, {len(x_test):,} to test on: {', '.join(data.classes)}\n")
    net = network(len(data.classes))

    # small sets need their pictures varied: mirrored, moved, a little turned and scaled, lighter and darker
    vary = augment.compose(
        augment.Flip(),
        augment.Affine(rotate=10, scale=(0.9, 1.1), translate=options.size / 16),
        augment.ColourJitter(brightness=0.2, contrast=0.2, saturation=0.2),
    )
    batch_size = min(32, len(x))
    rate = optax.schedules.cosine_onecycle_schedule(options.epochs * (len(x) // batch_size), 3e-3)
    try:
        run = fcnn.fit(
            net,
            data.train,
            optimizer=optax.adamw(rate, weight_decay=0.02, mask=fcnn.training.decay_mask),
            epochs=options.epochs,
            key=jax.random.key(0),
            batch_size=batch_size,
            validation=data.test,
            augment=vary,
            checkpoint=options.out / "checkpoints",
            resume=options.resume,
        )
    except fcnn.training.CheckpointError as error:
        print(error, file=sys.stderr)
        return 1
    found = fcnn.evaluate(net, run.params, data.test, state=run.state)
    print(f"\ntest accuracy {found['accuracy']:.1%} of {len(y_test)} pictures")

    predict = jax.jit(lambda batch: net.apply(run.params, batch, state=run.state).argmax(-1))
    fcnn.interop.save_weights(options.out / "weights.safetensors", run.params, run.state)
    (options.out / "classes.json").write_text(json.dumps(data.classes) + "\n")
    fcnn.draw.learning_curve(run.history, "own pictures").savefig(options.out / "learning_curve.png", dpi=150)
    said = np.concatenate([predict(x_test[i : i + 64]) for i in range(0, len(x_test), 64)])
    title = "pictures it got wrong: what it is, what the network said"
    fcnn.draw.mistakes(x_test, y_test, said, data.classes, title=title).savefig(options.out / "mistakes.png", dpi=150)
    print(f"written to {options.out.resolve()}")

    if options.name is not None:
        files = sorted(path for path in options.name.iterdir() if path.is_file())
        for path in files:
            try:
                picture = fcnn.data.load_image(path, size=options.size)
            except (OSError, ValueError) as error:
                print(f"{path.name}: {error}", file=sys.stderr)
                continue
            share = np.asarray(jax.nn.softmax(net.apply(run.params, picture[None], state=run.state)[0]))
            print(f"{path.name}: {data.classes[share.argmax()]} ({share.max():.0%})")
    return 0


def shapes(folder: Path, count: int = 60, size: int = 64) -> Path:
    """Write a folder of circles, squares and triangles, in random places, sizes and colours."""
    from PIL import Image, ImageDraw

    generator = np.random.default_rng(0)
    for name in ("circle", "square", "triangle"):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for i in range(count):
            ground, ink = generator.integers(0, 120, 3), generator.integers(136, 256, 3)
            image = Image.new("RGB", (size, size), tuple(map(int, ground)))
            r = int(generator.integers(size // 8, size // 4))
            cx, cy = (int(c) for c in generator.integers(r, size - r, 2))
            box, draw = (cx - r, cy - r, cx + r, cy + r), ImageDraw.Draw(image)
            colour = tuple(map(int, ink))
            if name == "circle":
                draw.ellipse(box, fill=colour)
            elif name == "square":
                draw.rectangle(box, fill=colour)
            else:
                draw.polygon([(cx, cy - r), (cx - r, cy + r), (cx + r, cy + r)], fill=colour)
            image.save(folder / name / f"{i:03d}.png")
    return folder


if __name__ == "__main__":
    compiled.keep()
    sys.exit(main())
