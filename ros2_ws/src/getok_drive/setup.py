"""Thin ROS package: executables, launch files and configuration. The Python code is the pip package getok-drive beside it."""

from pathlib import Path

from setuptools import setup

NAME = "getok_drive"
HERE = Path(__file__).parent


def files(folder: str, pattern: str) -> list[str]:
    """Paths of a folder's files, relative to this one, as setuptools wants them."""
    return sorted(p.relative_to(HERE).as_posix() for p in (HERE / folder).glob(pattern))


setup(
    name=NAME,
    version="0.1.0",
    packages=[],
    data_files=[
        ("share/ament_index/resource_index/packages", [f"resource/{NAME}"]),
        (f"share/{NAME}", ["package.xml"]),
        (f"share/{NAME}/launch", files("launch", "*.launch.py")),
        (f"share/{NAME}/config", files("config", "*")),
        (f"lib/{NAME}", files("scripts", "*")),
    ],
    zip_safe=False,
)
