"""Where things live on this machine. Read from the environment when asked, never at import.

`SCDRUGMAP_CACHE` moves the cache (a Space's /data, a cluster's shared disk). Without it a checkout uses its own
`cache/`, and an installed package the user's cache folder. The precomputed results that the repository carries stay
readable wherever the cache is. What stands beside the package in a checkout stands in it, below `site/`, where it is
installed from a wheel (setup.py).
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

import platformdirs

PACKAGE = Path(__file__).resolve().parent
CHECKOUT = PACKAGE.parent
SITE = PACKAGE / "site"  # only in a wheel


def site() -> Path:
    """Return the folder of app.py, pages/, .streamlit/ and cache/results/: `SITE` in a wheel, else the checkout."""
    return SITE if SITE.is_dir() else CHECKOUT


def default_cache() -> Path:
    """Return the cache of a machine whose environment names none."""
    in_checkout = not SITE.is_dir() and (CHECKOUT / "pyproject.toml").is_file()
    return CHECKOUT / "cache" if in_checkout else Path(platformdirs.user_cache_dir("scdrugmap"))


@dataclass(frozen=True)
class Settings:
    """Folders and switches of one process; `Settings.from_env()` reads them."""

    cache: Path
    precomputed: Path  # results that came with the repository or the wheel; read-only
    public: bool = False  # a shared deployment: hides Runs, shortens what is kept
    max_upload_mb: int = 2048
    keep_jobs_hours: float = 24.0
    dask: str = ""  # address of a Dask scheduler for the app's jobs; empty starts a local one

    @classmethod
    def from_env(cls) -> Settings:
        """Read `SCDRUGMAP_*` from the environment of this process."""
        env = os.environ
        return cls(
            cache=Path(env.get("SCDRUGMAP_CACHE") or default_cache()).expanduser().resolve(),
            precomputed=Path(env.get("SCDRUGMAP_PRECOMPUTED") or site() / "cache" / "results").resolve(),
            public=env.get("SCDRUGMAP_PUBLIC", "") not in ("", "0"),
            max_upload_mb=int(env.get("SCDRUGMAP_MAX_UPLOAD_MB", cls.max_upload_mb)),
            keep_jobs_hours=float(env.get("SCDRUGMAP_KEEP_JOBS_HOURS", cls.keep_jobs_hours)),
            dask=env.get("SCDRUGMAP_DASK", cls.dask),
        )

    @property
    def results(self) -> Path:
        """Where new runs, predictions and scores are written."""
        return self.cache / "results"

    @property
    def embeddings(self) -> Path:
        """The joblib store of embeddings."""
        return self.cache / "embeddings"

    @property
    def weights(self) -> Path:
        """Downloaded and converted checkpoints, one folder a model."""
        return self.cache / "weights"

    @property
    def data(self) -> Path:
        """Curated data sets, `<key>.h5ad`."""
        return self.cache / "data"

    @property
    def references(self) -> Path:
        """Reference heads that the user fitted, `<model>/<name>/`."""
        return self.cache / "references"

    @property
    def jobs(self) -> Path:
        """The app's jobs: one unguessable folder each."""
        return self.cache / "jobs"
