"""Make the virtual environment .venv from the lock file; `make setup` calls it.

torch is not in the lock: which build is right depends on the machine. On Linux without a GPU a CPU build is tried,
in this order, before anything else:
  1. the index named by TORCH_INDEX_URL, where it is set (then nothing else is tried, on any machine);
  2. whatever pip is configured to look at (PIP_FIND_LINKS, PIP_INDEX_URL, pip.conf);
  3. the CPU builds that uv knows of (--torch-backend cpu).
Only then the default build, which brings CUDA along, and that is said aloud. Leaving CUDA's packages out is no way:
that build does not import without them. Elsewhere (macOS, a machine with a GPU) the default build is the right one.
"""

import configparser
import os
import platform
import shutil
import subprocess
import sys
from pathlib import Path

TOP = Path(__file__).resolve().parent.parent
VENV = TOP / ".venv"
PYTHON = VENV / "bin" / "python"


def say(text):
    "Print a line that can be told from those of pip."
    print("setup: " + text, flush=True)


def done(*command, **options):
    "Run a command; True when it succeeded."
    return subprocess.run([str(c) for c in command], cwd=TOP, **options).returncode == 0


def must(*command):
    "Run a command; stop with its name where it fails."
    if not done(*command):
        sys.exit("setup: this command failed: " + " ".join(map(str, command)))


def settings():
    "The project's settings.ini, the source of every version."
    parser = configparser.ConfigParser(delimiters=["="], interpolation=None)
    parser.read(TOP / "settings.ini")
    return parser["DEFAULT"]


def sees_gpu():
    "True when an NVIDIA driver answers."
    return shutil.which("nvidia-smi") is not None and done(
        "nvidia-smi", "-L", stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )


def make_venv():
    "Create .venv with pip inside, by Python's own venv or, where the system left that out, by uv."
    if PYTHON.exists() and done(PYTHON, "-m", "pip", "--version", stdout=subprocess.DEVNULL):
        return
    say("creating .venv with Python " + platform.python_version())
    if done(sys.executable, "-m", "venv", "--clear", VENV):
        return
    if shutil.which("uv") and done("uv", "venv", "--quiet", "--clear", "--seed", "--python", sys.executable, VENV):
        return
    sys.exit("setup: could not create .venv; on Debian and Ubuntu install the package python3-venv, or install uv")


def find_uv():
    "The uv that is there, else one installed into .venv, else None (then pip does the work, in minutes)."
    if shutil.which("uv"):
        return shutil.which("uv")
    inside = VENV / "bin" / "uv"
    return inside if inside.exists() or done(PYTHON, "-m", "pip", "install", "--quiet", "uv") else None


def install_torch(uv, version):
    "Install the pinned torch in the build this machine can use."
    held = subprocess.run(
        [str(PYTHON), "-c", "import torch; print(torch.__version__)"], capture_output=True, text=True
    ).stdout.strip()
    if held.split("+")[0] == version:
        return
    pin, quiet = "torch==" + version, dict(stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    pip = [PYTHON, "-m", "pip", "install", "--quiet"]
    index = os.environ.get("TORCH_INDEX_URL")
    if index:
        say("installing " + pin + " from TORCH_INDEX_URL")
        return must(*pip, "--index-url", index, pin)
    if sys.platform == "linux" and not sees_gpu():
        say("no GPU: installing a CPU build of " + pin)
        if done(*pip, "--no-deps", pin + "+cpu", **quiet):
            return
        if uv and done(
            uv, "pip", "install", "--quiet", "--python", PYTHON, "--no-deps", "--torch-backend", "cpu", pin, **quiet
        ):
            return
        say(
            "NOTE: no CPU build of " + pin + " was to be had: taking the default build, which brings gigabytes of CUDA "
            "packages that this machine has no use for. To avoid that, stop here and set TORCH_INDEX_URL or "
            "PIP_FIND_LINKS to a place with a CPU build."
        )
    say("installing the default build of " + pin)
    must(*pip, "--constraint", "requirements.txt", pin)


def install_lock(uv):
    "Install exactly what requirements.txt names, and the package itself, editable."
    say("installing requirements.txt")
    pip = [PYTHON, "-m", "pip", "install", "--quiet"]
    lock = ("--no-deps", "--requirement", "requirements.txt")
    # compiled now, all of it: where Python may write no bytecode (many containers), every process would do it again
    if not (uv and done(uv, "pip", "install", "--quiet", "--compile-bytecode", "--python", PYTHON, *lock)):
        must(*pip, *lock)
    must(*pip, "--no-deps", "--no-build-isolation", "--editable", ".")


def main():
    "Make .venv, or stop with a line that says why not."
    minimum = tuple(int(part) for part in settings()["min_python"].split("."))
    if sys.version_info < minimum:
        sys.exit(
            "setup: Python {} or newer is needed, and {} is {}; name another with: make PYTHON=python3.11 ...".format(
                settings()["min_python"], sys.executable, platform.python_version()
            )
        )
    make_venv()
    uv = find_uv()
    pins = dict(entry.split("==") for entry in settings()["requirements"].split() if "==" in entry)
    install_torch(uv, pins["torch"])
    install_lock(uv)
    must(PYTHON, "-c", "import torch, fima")
    say("done: .venv")


if __name__ == "__main__":
    main()
