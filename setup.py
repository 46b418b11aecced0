"""Puts into a wheel what stands beside the package in the repository, so that an installed app is a whole one.

app.py, pages/, the app's settings and the precomputed results keep their place at the repository's top, as people look
for them there. In a wheel the same paths stand below `scdrugmap/site/`, where `scdrugmap.settings` finds them;
pyproject.toml, which says everything else, has no word for that.
"""

from __future__ import annotations

from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

SITE = Path("scdrugmap", "site")
PATTERNS = (
    "app.py",
    "pages/*.py",
    ".streamlit/config.toml",  # and never secrets.toml
    "cache/results/scores.parquet",
    "cache/results/runs/*.json",
    "cache/results/predictions/*.parquet",
)


class BuildWithSite(build_py):
    """Copy the site beside the modules; an editable install finds it in the checkout."""

    def run(self) -> None:
        """Copy modules, then the site."""
        super().run()
        for target, source in self._site().items():
            self.mkpath(str(Path(target).parent))
            self.copy_file(source, target)

    def get_source_files(self) -> list[str]:
        """Return what an sdist must hold, so that a wheel made from it is the same."""
        return [*super().get_source_files(), *self._site().values()]

    def get_outputs(self, include_bytecode: bool = True) -> list[str]:
        """Return the files that a build writes."""
        return [*super().get_outputs(include_bytecode), *self._site()]

    def get_output_mapping(self) -> dict[str, str]:
        """Return the source of each file that a build writes."""
        return super().get_output_mapping() | self._site()

    def _site(self) -> dict[str, str]:
        if self.editable_mode:
            return {}
        sources = sorted(path for pattern in PATTERNS for path in Path().glob(pattern))
        whole = (path for path in sources if not path.name.startswith("."))  # not the draft of a run being written
        return {str(Path(self.build_lib) / SITE / path): str(path) for path in whole}


setup(cmdclass={"build_py": BuildWithSite})
