"""Set the address of the repository, wherever it is written: `make address TO=account/repository`.

The one place that says what it is now is `[project.urls]` in `pyproject.toml`.
"""

import re
import subprocess
import sys
import tomllib
from pathlib import Path


def set_address(new: str, root: Path) -> list[Path]:
    """Write the new address in place of the current one in all files of the repository; returns those that changed."""
    if not re.fullmatch(r"[\w.-]+/[\w.-]+", new):
        raise SystemExit(f"error: {new!r} is no address. Fix: make address TO=account/repository.")
    urls = tomllib.loads((root / "pyproject.toml").read_text())["project"]["urls"]
    old = urls["Repository"].removeprefix("https://github.com/")
    listed = subprocess.run(["git", "grep", "-lIF", old], cwd=root, capture_output=True, text=True, check=True).stdout
    changed = [root / name for name in listed.splitlines()]
    for path in changed:
        path.write_text(path.read_text().replace(old, new))
    return changed


if __name__ == "__main__":
    for path in set_address(sys.argv[1] if sys.argv[1:] else "", Path(__file__).parents[1]):
        print(path)
