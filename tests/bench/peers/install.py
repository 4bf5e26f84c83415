"""Installs each Python peer into an environment of its own, as some exclude each other:
`python -m tests.bench.peers.install`.
"""

from __future__ import annotations

import json
import subprocess
import venv

from tests.bench.peers.contest import HERE, INSTALLED


def main() -> None:
    """Make what is missing."""
    wanted = json.loads((HERE / "requirements.json").read_text(encoding="utf-8"))
    for name, requirements in wanted.items():
        home = INSTALLED / name
        print(f"installing {name}", flush=True)
        venv.create(home, with_pip=True, clear=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
        subprocess.run([*pip, *requirements], check=True)


if __name__ == "__main__":
    main()
