"""Build `getok_drive_msgs`, and the `tf2_msgs` that PyPI lacks, into the current virtual environment, beside its ROS 2 wheels.

    python scripts/build_msgs.py [--install-tools] [--force] [--wheel DIR]

The environment is the ament prefix, so nothing has to be sourced afterwards. Does nothing when the installed package was built
from the same sources. With a ROS 2 from apt use ``colcon build`` in ``ros2_ws`` instead. Needs a C++ compiler.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import time
from importlib import metadata
from pathlib import Path

WORKSPACE = Path(__file__).resolve().parent.parent / "ros2_ws"
PACKAGE = WORKSPACE / "src" / "getok_drive_msgs"
PREFIX = Path(sys.prefix)
PACKAGES = (PACKAGE, WORKSPACE / "wheels" / "tf2_msgs")
STAMP = PREFIX / "share" / "getok_drive_msgs" / "sources.sha256"


def sources_sha256() -> str:
    """Hash over every file that the build reads and the Python it is built for."""
    digest = hashlib.sha256(sys.version.encode())
    for path in sorted(p for package in PACKAGES for p in package.rglob("*") if p.is_file()):
        digest.update(path.relative_to(WORKSPACE).as_posix().encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def environment() -> dict[str, str]:
    """Environment of the build: tools of this Python first, this prefix for ament and CMake."""
    env = {k: v for k, v in os.environ.items() if k not in ("LD_LIBRARY_PATH", "_ROS_WHEELS_BOOTSTRAP_COMPLETE")}
    env["PATH"] = f"{PREFIX / 'bin'}{os.pathsep}{env.get('PATH', '')}"
    env["AMENT_PREFIX_PATH"] = env["CMAKE_PREFIX_PATH"] = str(PREFIX)
    env["GETOK_MSGS_PROJECT_INCLUDE"] = str(PACKAGE / "cmake" / "pypi_wheels.cmake")
    return env


def build_requirements() -> Path:
    """Pins of the build tools, for the distribution whose wheels this environment holds."""
    kilted = any(metadata.distributions(name="ros-kilted-rclpy"))
    return WORKSPACE / f"requirements-build{'-kilted' if kilted else ''}.txt"


def run(*command: str | Path, cwd: Path | None = None) -> None:
    """Runs a command quietly; on failure shows what it wrote and stops."""
    done = subprocess.run(
        [str(c) for c in command], env=environment(), cwd=cwd, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    if done.returncode:
        sys.exit(f"{done.stdout}\nFailed with exit code {done.returncode}: {' '.join(str(c) for c in command)}")


def check_tools() -> None:
    """Stops with the command that mends it when something that the build needs is absent."""
    if importlib.util.find_spec("rclpy") is None:
        sys.exit("rclpy is not installed here: pip install -e '.[ros]' (x86_64 Linux), or source a ROS 2 and use colcon.")
    if not (PREFIX / "share" / "rosidl_default_generators").is_dir():
        sys.exit(f"The message generators are not installed here: run again with --install-tools, or pip install -r "
                 f"{build_requirements()}")  # fmt: skip
    if not (shutil.which("c++") or shutil.which("g++") or os.environ.get("CXX")):
        sys.exit("No C++ compiler found: install g++ (Debian, Ubuntu: apt install g++) or set CXX.")


def build_and_install() -> None:
    """Configures, compiles and installs into this environment."""
    for package in PACKAGES:
        with tempfile.TemporaryDirectory(prefix=f"{package.name}_") as folder:
            build = Path(folder)
            run(
                "cmake", "-S", package, "-B", build, "-G", "Ninja", f"-DCMAKE_INSTALL_PREFIX={PREFIX}",
                f"-DPython3_EXECUTABLE={sys.executable}", "-DBUILD_TESTING=OFF",
                f"-DCMAKE_PROJECT_INCLUDE={PACKAGE / 'cmake' / 'pypi_wheels.cmake'}",
            )  # fmt: skip
            run("cmake", "--build", build, "--target", "install")
    STAMP.write_text(sources_sha256() + "\n")


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--install-tools", action="store_true", help="pip install the pinned build tools first")
    parser.add_argument("--force", action="store_true", help="build even when the installed package is up to date")
    parser.add_argument("--wheel", type=Path, metavar="DIR", help="make a wheel in DIR instead of installing")
    args = parser.parse_args()

    if sys.prefix == sys.base_prefix:
        sys.exit("Run this with the Python of a virtual environment: the messages are installed into it.")
    started = time.monotonic()
    if args.wheel is None and not args.force and STAMP.is_file() and STAMP.read_text().strip() == sources_sha256():
        print(f"getok_drive_msgs is up to date in {PREFIX}")
        return
    if args.install_tools:
        run(sys.executable, "-m", "pip", "install", "-q", "-r", build_requirements())
    check_tools()
    if args.wheel is not None:
        run(sys.executable, "-m", "pip", "install", "-q", "scikit-build-core>=0.10")
        run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", args.wheel, PACKAGE)
        print(f"wheel of getok_drive_msgs in {args.wheel} ({time.monotonic() - started:.0f} s)")
        return
    build_and_install()
    print(f"getok_drive_msgs built into {PREFIX} ({time.monotonic() - started:.0f} s)")


if __name__ == "__main__":
    main()
