"""The table of a benchmark's result, and its place in a Markdown file.

python benchmarks/table.py RESULT.json                      # prints it
python benchmarks/table.py RESULT.json README.md            # puts it between the file's markers
python benchmarks/table.py RESULT.json README.md --check    # fails where the file has another
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from workloads import PUBLISHED

START, END = "<!-- bench:start -->", "<!-- bench:end -->"
#: share of the machine that other programs may take before the table says so: PyTorch's threads wait for each
#: other and suffer most, so that a busy machine flatters the rest
BUSY = 0.1
NAMES = {
    "fcnn": "fcnn",
    "flax": "Flax",
    "equinox": "Equinox",
    "haiku": "Haiku",
    "keras": "Keras (JAX)",
    "lax": "jax.lax",
    "onnxruntime": "onnxruntime",
    "pytorch": "PyTorch",
    "pytorch_channels_last": "PyTorch channels_last",
    "pytorch_autocast": "PyTorch autocast",
    "pytorch_compile": "PyTorch compile",
}
CASES = {
    "lenet5": "LeNet-5 step",
    "lenet_wide": "LeNet 32/64 step",
    "six_conv": "six 3x3 convs step",
    "per_example": "per-example gradients",
    "max_pool": "max pooling",
    "depthwise": "depthwise",
    "resnet18": "ResNet-18",
    "resnet18_small": "ResNet-18, 32x32",
    "mobilenet": "MobileNetV2",
    "unet": "U-Net",
    "resnet50": "ResNet-50",
    "vgg": "VGG-11 with norms",
    "densenet": "DenseNet-121",
}


def table(result):
    """Markdown: times of the networks and blocks by library, then the ratios beside their targets."""
    cases = result["cases"]
    libraries = [name for name in NAMES if any(name in found for found in cases.values())]
    rows = [("ms, fastest / median", *(NAMES[name] for name in libraries))]
    for case, found in cases.items():
        if case not in CASES:
            continue  # single operations stay in the file: too many for a page
        for measure in dict.fromkeys(measure for library in found.values() for measure in library["ms"]):
            if measure.endswith((": forward", ": kernel gradient", ": input gradient")):
                continue
            cells = [found.get(name, {}).get("ms", {}).get(measure) for name in libraries]
            shown = [f"{number(cell['fastest'])} / {number(cell['median'])}" if cell else "" for cell in cells]
            rows.append((label(case, measure), *shown))
    parts = [heading(result)]
    if len(rows) > 1:
        parts.append(markdown(rows))
    if result["ratios"]:
        rows = [("fcnn's", "case", "over that of", "at most", "got", "medians", "")]
        for got in result["ratios"]:
            against = f"its own {got['of']}" if got["of"] else NAMES[got["against"]]
            case = label(got["case"], got["measure"] if ":" in got["measure"] else "step")
            shown = "" if got["reached"] else "not reached"
            figures = (f"{got['target']:g}", f"{got['ratio']:g}", f"{got['ratio_of_medians']:g}", shown)
            rows.append((got["name"], case.removesuffix(" step"), against, *figures))
        parts.append(markdown(rows))
    return "\n\n".join(parts)


def heading(result):
    """Where the figures come from, in a sentence or two."""
    options, devices = result["options"], result["devices"].values()
    device = next((found["device"] for found in devices if found["platform"] != "cpu"), None)
    versions = ", ".join(f"{name} {version}" for name, version in sorted(result["versions"].items()))
    text = (
        f"{f'{device}, ' if device else ''}{result['machine']}, {options['dtype']}, {result['date']}, "
        f"Python {result['python']}, {versions}; rounds: {result['rounds_done']}"
        f"{', batch {}'.format(options['batch']) if options['batch'] else ''}."
    )
    if result["missing"]:
        text += f" Without: {', '.join(NAMES[name] for name in result['missing'])}."
    if slow := [
        f"{NAMES[name]} ({case})" for case, found in result.get("loops_given_up", {}).items() for name in found
    ]:
        text += f" Steps in a loop, given up: {', '.join(slow)}."
    if failed := [f"{NAMES[name]} ({case})" for case, found in result["failed"].items() for name in found]:
        text += f" Failed: {', '.join(failed)}."
    busy = max(
        (library.get("others") or 0 for case in result["cases"].values() for library in case.values()), default=0
    )
    if busy > BUSY:
        text += f" **Not to be trusted: other programs took up to {busy:.0%} of the machine.**"
    return text


def label(case, measure):
    """A row's name: the case, and what of it."""
    if measure == "scan":
        return f"{CASES[case].removesuffix(' step')}, in a loop, per step"
    if case in PUBLISHED:
        return f"{CASES[case]}, {measure}"
    return f"{CASES[case]} {measure}" if ":" in measure else CASES[case]


def number(value):
    """Three digits, never in powers of ten."""
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"


def markdown(rows):
    head, *body = rows
    line = ["---", *["---:"] * (len(head) - 1)]
    return "\n".join(f"| {' | '.join(row)} |" for row in (head, line, *body))


def placed(text, new):
    """The text with the new table between its markers.

    Raises:
        ValueError: not one pair of markers.
    """
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"the file must have one {START} and after it one {END}: the table goes between them")
    before, rest = text.split(START)
    return f"{before}{START}\n{new}\n{END}{rest.split(END)[1]}"


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+", help="JSON of bench.py; several make one table after another")
    parser.add_argument("--check", action="store_true", help="change nothing; fail where the table is another")
    options = parser.parse_args()
    into = options.results.pop() if options.results[-1].suffix != ".json" else None
    new = "\n\n".join(table(json.loads(path.read_text())) for path in options.results)
    if into is None:
        print(new)
        return
    text = into.read_text()
    wanted = placed(text, new)
    if options.check and text != wanted:
        sys.exit(f"the table in {into} is not that of {', '.join(map(str, options.results))}; run without --check")
    if not options.check:
        into.write_text(wanted)


if __name__ == "__main__":
    main()
