"""What is in the wheel: all that a machine without this repository needs to see, and nothing else."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import stat
import subprocess
import sys
import zipfile
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "ros2_ws/src/getok_drive"

pytestmark = pytest.mark.skipif(
    int(metadata.version("setuptools").split(".")[0]) < 77,
    reason="building the wheel needs setuptools 77 or newer (pyproject.toml)",
)


def sources(to: Path) -> Path:
    """The files that git knows, so that nothing left over from other builds gets in; without git, the folder as it is."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        return Path(
            shutil.copytree(ROOT, to, symlinks=True, ignore=shutil.ignore_patterns(".venv", ".git", "build", "out", "runs"))
        )
    wanted = ("getok_drive/", "launch/", "ros2_ws/src/getok_drive/")
    for name in filter(None, listed.stdout.split("\0")):
        if (name.startswith(wanted) or "/" not in name) and (ROOT / name).is_file() and not (ROOT / name).is_symlink():
            target = to / name
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, target)
    return to


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    folder = tmp_path_factory.mktemp("wheel")
    code = "import sys; from setuptools.build_meta import build_wheel; build_wheel(sys.argv[1])"
    environment = {k: v for k, v in os.environ.items() if k != "SETUPTOOLS_USE_DISTUTILS"}
    done = subprocess.run(
        [sys.executable, "-c", code, str(folder)], cwd=sources(folder / "src"), env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return zipfile.ZipFile(next(folder.glob("*.whl")))


def data(wheel: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    """Files that are installed into the prefix, by their path there."""
    return {i.filename.split(".data/data/")[1]: i for i in wheel.infolist() if ".data/data/" in i.filename}


def test_all_modules_are_there_and_no_others(wheel: zipfile.ZipFile) -> None:
    names = {n for n in wheel.namelist() if n.endswith(".py") and ".data/" not in n}
    assert names == {p.relative_to(ROOT).as_posix() for p in (ROOT / "getok_drive").rglob("*.py")}
    assert "getok_drive/py.typed" in wheel.namelist()
    assert not [n for n in wheel.namelist() if n.startswith(("training", "tests", "scripts"))]


def test_the_shipped_bundle_is_whole(wheel: zipfile.ZipFile) -> None:
    folder = "getok_drive/bundles/nano/"
    contract = json.loads(wheel.read(f"{folder}contract.json"))
    assert len(contract["files"]) >= 5
    for name, sha256 in contract["files"].items():
        assert hashlib.sha256(wheel.read(folder + name)).hexdigest() == sha256, name


def test_ros_finds_the_package_in_the_prefix(wheel: zipfile.ZipFile) -> None:
    """The environment is then a ROS prefix: the same files, at the same places, as colcon installs from the ROS package."""
    installed = data(wheel)
    assert "share/ament_index/resource_index/packages/getok_drive" in installed
    for folder, source in (("launch", ROOT / "launch"), ("config", PACKAGE / "config")):
        want = {p.name: p.read_bytes() for p in source.iterdir() if p.is_file()}
        found = {Path(n).name: wheel.read(i) for n, i in installed.items() if n.startswith(f"share/getok_drive/{folder}/")}
        assert found == want and len(want) >= 2
    assert wheel.read(installed["share/getok_drive/package.xml"]) == (PACKAGE / "package.xml").read_bytes()
    executables = {Path(n).name: i for n, i in installed.items() if n.startswith("lib/getok_drive/")}
    assert set(executables) == {p.name for p in (PACKAGE / "scripts").iterdir() if p.is_file()}
    assert {"perception_node", "camera_source", "replay"} <= set(executables)
    for name, info in executables.items():
        assert info.external_attr >> 16 & stat.S_IXUSR, f"{name} is not executable"


def test_metadata_says_what_pyproject_says(wheel: zipfile.ZipFile) -> None:
    text = wheel.read(next(n for n in wheel.namelist() if n.endswith(".dist-info/METADATA"))).decode()
    assert "License-Expression: Apache-2.0\n" in text and any(n.endswith("licenses/LICENSE") for n in wheel.namelist())
    assert all(f"Provides-Extra: {extra}\n" in text for extra in ("train", "mcap", "ros", "dev"))
    points = wheel.read(next(n for n in wheel.namelist() if n.endswith("entry_points.txt"))).decode()
    assert "getok-drive = getok_drive.cli:main" in points


def test_versions_of_all_packages_agree() -> None:
    """Wheel, ROS packages and messages are one product."""
    project = (ROOT / "pyproject.toml").read_text()
    version = next(line.split('"')[1] for line in project.splitlines() if line.startswith("version = "))
    messages = ROOT / "ros2_ws/src/getok_drive_msgs"
    for path in (PACKAGE / "package.xml", messages / "package.xml"):
        assert f"<version>{version}</version>" in path.read_text(), path
    assert f'version="{version}"' in (PACKAGE / "setup.py").read_text()
    assert f'version = "{version}"' in (messages / "pyproject.toml").read_text()
    from getok_drive import __version__

    assert __version__ == version
