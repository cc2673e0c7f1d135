"""Install Chromium for the browser tests where that can be done unasked: as root, with apt."""

import os
import shutil
import subprocess

from browser import CHROMIUM, NAMES  # of tests/, which the Makefile puts on the path

APT = ("apt-get", "-qq", "-o", "DPkg::Lock::Timeout=120")


def install() -> bool:
    """Return whether apt has installed it."""
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        return False
    print("ml-api: installing chromium with apt-get (a minute)", flush=True)
    quiet = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    commands = (("update",), ("install", "-y", "--no-install-recommends", "chromium"))
    return all(
        subprocess.run([*APT, *command], check=False, env=quiet).returncode == 0
        for command in commands
    )


if __name__ == "__main__" and CHROMIUM is None and not install():
    print(
        f"ml-api: no browser: there is none of {', '.join(NAMES)} on the PATH, and apt-get can't"
        " install one here; what needs it is skipped",
        flush=True,
    )
