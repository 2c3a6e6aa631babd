"""What pyproject.toml cannot say: a wheel holds conf/ as codec/conf."""

from setuptools import find_packages, setup

setup(
    packages=[
        *find_packages(include=["codec*", "experiments*"]),
        *(f"hydra_plugins.{name}" for name in find_packages("hydra_plugins")),
        "codec.conf",
    ],
    package_dir={"codec.conf": "conf"},
)
