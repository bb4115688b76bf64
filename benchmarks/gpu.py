"""Everything that only a GPU can tell, as one command of a few minutes, in the environment of this interpreter.

    python3 benchmarks/gpu.py --out results --minutes 8
    python3 benchmarks/gpu.py --out results --only bench --smoke        # tiny sizes, on whatever device there is

In order: the self-test; networks beside PyTorch and Flax, in bfloat16 and float32; `examples/cifar10.py`; the contract
test. Each part has its share of the time and a file of its own, written as it goes; what found no time says so.
With `FCNN_DATA` the folder of data sets. `benchmarks/results/gpu_*.json` are its files.
"""

import argparse
import json
import os
import re
import subprocess
import sys
import time
from pathlib import Path

import machine

ROOT = Path(__file__).parents[1]
#: case -> libraries, in the order of what matters most; the last are left out where time is short
BFLOAT16 = {
    "resnet50": "fcnn,pytorch_channels_last,pytorch_compile,flax",
    "resnet18": "fcnn,pytorch_channels_last,pytorch_compile",
    "mobilenet": "fcnn,pytorch_channels_last,pytorch_compile",
    "unet": "fcnn,pytorch_channels_last,pytorch_compile",
    "densenet": "fcnn,pytorch_channels_last",
}
FLOAT32 = {"resnet50": "fcnn,pytorch_channels_last"}


def say(*words):
    print(*words, flush=True)


def run(words, seconds, **variables):
    """A command's exit status and output; None instead of the status where it took too long."""
    shown = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{os.environ.get('PYTHONPATH', '')}", **variables}
    command = [sys.executable, *map(str, words)]
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=shown, timeout=seconds, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
    except subprocess.TimeoutExpired as error:
        said = error.stdout or b""
        return None, said if isinstance(said, str) else said.decode(errors="replace")
    return done.returncode, done.stdout


def selftest(options, seconds):
    status, said = run(["-m", "fcnn.selftest"], seconds, NVIDIA_TF32_OVERRIDE="0")
    return {"status": status, "said": said.splitlines()[-40:]}


def bench(options, seconds):
    """Each case by itself, so that a stop loses little."""
    end, found = time.perf_counter() + seconds, {}
    for dtype, cases in (("bfloat16", BFLOAT16), ("float32", FLOAT32)):
        for case, libraries in cases.items():
            left = end - time.perf_counter()
            if left < 20:
                found[f"{case}, {dtype}"] = "no time was left"
                continue
            path = options.out / f"gpu_{case}_{dtype}.json"
            words = ["benchmarks/bench.py", "--here", "--cases", case, "--libraries", libraries, "--dtype", dtype]
            words += [
                "--batch",
                options.batch,
                "--rounds",
                1,
                "--seconds",
                1,
                "--unchecked",
                "--timeout",
                75,
                "--out",
                path,
            ]
            _, said = run([*words, *(["--smoke"] if options.smoke else [])], left)
            say(said[-1500:])
            found[f"{case}, {dtype}"] = json.loads(path.read_text()) if path.exists() else said[-2000:]
            path.unlink(missing_ok=True)
            keep(options, "bench", found)  # after every case
    return found


def cifar10(options, seconds):
    """The recipe, on the copy of the images that is compressed, unless the folder has the original ones."""
    words = [
        "examples/cifar10.py",
        "--seeds",
        options.seeds,
        "--out",
        options.out / "cifar10",
        *options.cifar10.split(),
    ]
    status, said = run([*words, *options.cifar10.split()], seconds)
    path = options.out / "cifar10" / "result.json"
    result = json.loads(path.read_text()) if path.exists() else None
    return {"status": status, "said": said.splitlines()[-30:], "result": result}


def contract(options, seconds):
    """The contract test of every layer and transformation, on this device.

    In full float32, and with sums in one order: gradients of gathers are added up by whichever thread comes first.
    """
    words = ["-m", "pytest", "-n", options.workers, "-m", "not slow", "--maxfail=200", "--tb=line"]
    words += ["-p", "no:benchmark", "tests/test_contract.py"]
    variables = {
        "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
        "JAX_DEFAULT_MATMUL_PRECISION": "highest",
        "XLA_FLAGS": "--xla_gpu_deterministic_ops=true",
    }
    status, said = run(words, seconds, **variables)
    lines = said.splitlines()
    failed = [line for line in lines if re.match("(FAILED|ERROR) ", line)]
    return {"status": status, "failed": failed, "said": lines[-60:]}


PARTS = {"selftest": (selftest, 45), "bench": (bench, 270), "cifar10": (cifar10, 80), "contract": (contract, 160)}


def keep(options, name, found):
    about = {"device": device(), **machine.provenance(*options.packages), "batch": options.batch, "found": found}
    (options.out / f"gpu_{name}.json").write_text(json.dumps(about, indent=1) + "\n")


def device():
    status, said = run(["-c", "import jax; d = jax.devices()[0]; print(d.platform, d.device_kind)"], 120)
    return said.strip().splitlines()[-1] if status == 0 else said[-500:]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, help="folder of the results")
    parser.add_argument("--minutes", type=float, default=9, help="for everything")
    parser.add_argument("--only", default=",".join(PARTS), help=f"of {', '.join(PARTS)}", metavar="A,B")
    parser.add_argument("--batch", type=int, default=128, help="images in a step (default 128)")
    parser.add_argument("--seeds", type=int, default=5, help="trainings on CIFAR-10 (default 5)")
    parser.add_argument("--cifar10", default="--data jpeg", help="further words for examples/cifar10.py")
    parser.add_argument("--workers", type=int, default=os.cpu_count(), help="processes of the contract test")
    parser.add_argument("--smoke", action="store_true", help="tiny sizes: only whether all of it runs")
    options = parser.parse_args()
    options.packages = ["torch", "flax"]
    options.out = options.out.resolve()
    options.out.mkdir(parents=True, exist_ok=True)
    end = time.perf_counter() + 60 * options.minutes
    for name in options.only.split(","):
        part, share = PARTS[name]
        seconds = min(share, end - time.perf_counter())
        say(f"== {name}, at most {seconds:.0f} s")
        begun = time.perf_counter()
        found = part(options, seconds) if seconds > 5 else "no time was left"
        keep(options, name, found)
        say(json.dumps(found, indent=1)[-2500:] if name != "bench" else "", f"-- {time.perf_counter() - begun:.0f} s")


if __name__ == "__main__":
    main()
