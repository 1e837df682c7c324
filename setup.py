"""What pyproject.toml cannot say: configs/ lies beside the package in a checkout, and inside it in a wheel."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py


class BuildWithConfigs(build_py):
    """build_py, and a copy of configs/ as distill3d/configs/; an editable install keeps reading the checkout's."""

    def run(self) -> None:
        super().run()
        if not self.editable_mode:
            copies = Path(self.build_lib) / "distill3d" / "configs"
            shutil.rmtree(copies, ignore_errors=True)  # an earlier build may have left some that are gone
            shutil.copytree("configs", copies)


setup(cmdclass={"build_py": BuildWithConfigs})
