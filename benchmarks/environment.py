"""The environment in which the libraries that are compared live: `.bench/venv`, apart from the project's own.

    python benchmarks/environment.py            # makes it, or brings it up to requirements.txt

A package that cannot be had is left out and named; the benchmark then runs without it.
"""

import argparse
import hashlib
import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".bench"
REQUIREMENTS = Path(__file__).parent / "requirements.txt"
STAMP = FOLDER / "installed.json"


def interpreter():
    return FOLDER / "venv" / ("Scripts" if sys.platform == "win32" else "bin") / "python"


def wanted():
    lines = (line.split("#")[0].strip() for line in REQUIREMENTS.read_text().splitlines())
    return [line for line in lines if line]


def make():
    """Install what is wanted, one by one where not all of it can be had; the names of what could not."""
    stamp = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()
    if STAMP.exists() and interpreter().exists():
        known = json.loads(STAMP.read_text())
        if known["requirements"] == stamp:
            return known["missing"]
    FOLDER.mkdir(exist_ok=True)
    (FOLDER / ".gitignore").write_text("*\n")
    if not interpreter().exists():
        print(f"making a virtual environment in {FOLDER / 'venv'}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", FOLDER / "venv"], check=True)
    print(f"installing what {REQUIREMENTS.relative_to(ROOT)} names", flush=True)
    missing = []
    if not install(*wanted()):
        missing = [package for package in wanted() if not install(package)]
    STAMP.write_text(json.dumps({"requirements": stamp, "missing": missing}) + "\n")
    for package in missing:
        print(f"left out, could not be installed: {package}", flush=True)
    return missing


def install(*packages):
    command = [interpreter(), "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *packages]
    return subprocess.run(command).returncode == 0


if __name__ == "__main__":
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter).parse_args()
    make()
    print(interpreter())
