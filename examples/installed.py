"""Files of installed packages, found without importing the package: their trained weights, their pictures."""

import importlib.metadata
import importlib.util
from pathlib import Path


def file_of(package: str, name: str, *, distribution: str) -> Path:
    """A file of an installed package.

    Args:
        package: the name that is imported.
        name: the file's path in the package's folder, with slashes.
        distribution: the name that is installed.

    Returns:
        Its path.

    Raises:
        FileNotFoundError: the package is not installed, or has no such file.
    """
    spec = importlib.util.find_spec(package)
    for folder in (spec.submodule_search_locations or ()) if spec else ():
        path = Path(folder, name)
        if path.is_file():
            return path
    what = f"has no file {name}" if spec else "is not installed"
    raise FileNotFoundError(f"{distribution} {what}: pip install --no-deps {distribution}")


def versions(*distributions: str) -> dict[str, str]:
    """Which version of each is installed."""
    return {name: importlib.metadata.version(name) for name in distributions}
