"""What a Dask worker does for a job. Knows no browser and no streamlit: a folder and plain values in, files out.

The heavy imports stand inside the functions: the server only submits `work` and stays without torch.
"""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from scdrugmap.app.jobs import store
from scdrugmap.errors import Cancelled, ScDrugMapError
from scdrugmap.files import write_json
from scdrugmap.models.core.cells import ABOUT
from scdrugmap.settings import Settings

if TYPE_CHECKING:
    import pandas as pd
    from anndata import AnnData

EXAMPLE = "simulated-melanoma.h5ad"
_INTERVAL = 0.2  # seconds between two writes of status.json within a stage
_MOST, _LONGEST = 20, 60  # values of a column that a page may show, and characters of each
_SCALARS = ("value_type", "found_in", "identifier", "organism", "n_cells", "n_genes", "n_genes_known")


class Reporter:
    """Writes a job's status, and stops the work when the user has asked for it."""

    def __init__(self, job: Path) -> None:
        self.job = job
        self.status = store.read_status(job)
        self._marker = store.cancel_marker(job, self.status.run)
        self._written = 0.0

    def stage(self, name: str) -> None:
        """Enter a stage; raises `Cancelled` when the user has stopped or deleted the job."""
        self._stop_if_asked()
        self._write(state="running", stage=name, done=0, total=0, stage_started=time.time())

    def progress(self, done: int, total: int) -> None:
        """Report cells done in this stage; called at each batch. Raises `Cancelled` like `stage`."""
        self._stop_if_asked()
        if done >= total or time.monotonic() - self._written >= _INTERVAL:
            self._write(done=int(done), total=int(total))

    def keep_input(self, adata: AnnData) -> None:
        """Keep what the loader found in the file."""
        info = adata.uns["scdrugmap"]["input"]
        rows = zip(info["checks_level"], info["checks_message"], info.get("checks_remedy", ()), strict=False)
        checks = tuple({"level": str(a), "message": str(b), "remedy": str(c)} for a, b, c in rows)
        plain = {key: getattr(info[key], "item", lambda value=info[key]: value)() for key in _SCALARS if key in info}
        columns = [str(column) for column in adata.obs.columns]
        about = {word: _held(adata.obs[word]) for word in ABOUT if word in columns}
        self._write(checks=checks, input={**plain, "obs_columns": columns, "about": about})

    def finish(self, state: store.State, **changes: Any) -> None:
        """Write the last status of this run, and delete an upload that nobody waits for any more."""
        if store.read_status(self.job).run != self.status.run:
            return  # stopped, and already run again
        if state in ("done", "cancelled") and (self.job / store.RELEASED).exists():
            store.drop_upload(self.job)
        self._write(state=state, **changes)

    def _write(self, **changes: Any) -> None:
        self.status = dataclasses.replace(self.status, updated=time.time(), **changes)
        self._written = time.monotonic()
        try:
            store.write_status(self.job, self.status)
        except FileNotFoundError:
            raise Cancelled("The job was deleted while it ran.") from None

    def _stop_if_asked(self) -> None:
        if self._marker.exists() or not self.job.is_dir():
            raise Cancelled("The job was stopped.", "Run it again.")


def work(job: str, kind: str, options: dict[str, Any], settings: Settings) -> None:
    """Check or predict; what a user can mend ends in `status.json`, a bug is raised to the scheduler.

    Args:
        job: folder of the job.
        kind: "check" reads the upload and lists what was found, "predict" goes on to the results.
        options: of `JobOptions`, as plain values.
        settings: of the server, so that the worker looks for references where the server does.

    """
    folder = Path(job)
    try:
        report = Reporter(folder)
        if kind == "check":
            _check(report)
        else:
            _predict(report, options, settings)
    except Cancelled:
        if folder.is_dir():
            report.finish("cancelled")
    except ScDrugMapError as error:
        checks = [_plain(check) for check in getattr(error, "checks", ())]
        changes: dict[str, Any] = {"checks": tuple(checks)} if checks else {}
        report.finish("failed", error=str(error), remedy=error.remedy, **changes)


def warm_up() -> None:
    """Import what a prediction needs, so that the first job does not wait for it."""
    import scdrugmap.prediction.pipeline  # noqa: F401 - imported for its effect on this worker


def _check(report: Reporter) -> None:
    report.stage("read")
    report.keep_input(_read(report))
    report.finish("checked")


def _predict(report: Reporter, options: dict[str, Any], settings: Settings) -> None:
    from scdrugmap.prediction.output import write
    from scdrugmap.prediction.pipeline import predict, summary

    report.stage("read")
    adata = _read(report)
    report.keep_input(adata)
    chosen = {**options, **options.get("settings", {}), "settings": settings}  # the model's own stand beside ours
    predict(adata, **chosen, cache=report.job / store.EMBEDDINGS, progress=report.progress, on_stage=report.stage)
    report.stage("write")
    write(adata, report.job / store.RESULTS["csv"])
    write(adata, report.job / store.RESULTS["h5ad"])
    write_json(report.job / store.RESULTS["summary"], summary(adata))
    report.finish("done")


def _read(report: Reporter) -> AnnData:
    from scdrugmap.data.io.read import read_h5ad

    if report.status.simulated and not (report.job / store.UPLOAD / EXAMPLE).is_file():
        _simulate(report.job / store.UPLOAD / EXAMPLE)
    return read_h5ad(store.upload(report.job))


def _simulate(path: Path) -> None:
    from scdrugmap.data.simulate import example

    path.parent.mkdir(exist_ok=True)
    example(labelled=True).write_h5ad(path)


def _held(column: pd.Series) -> dict[str, Any]:
    """Say what a column holds: how many different values, and the first of them, cut to a length that can be shown."""
    values = [value for value in column.dropna().astype(str).unique().tolist() if value]
    return {"n": len(values), "values": [value[:_LONGEST] for value in values[:_MOST]]}


def _plain(check: Any) -> dict[str, str]:
    return {"level": str(check.level), "message": str(check.message), "remedy": str(check.remedy)}
