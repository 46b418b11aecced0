"""Jobs in every state, written as the service writes them, from made-up predictions: for the tests of the app."""

from __future__ import annotations

import dataclasses
import time
from typing import Any

import numpy as np
import pandas as pd
from anndata import AnnData

from scdrugmap.app.jobs import store
from scdrugmap.files import write_json
from scdrugmap.prediction import output
from scdrugmap.prediction.summary import summary
from scdrugmap.settings import Settings

CHECKS = (
    {"level": "ok", "message": "raw counts in X", "remedy": ""},
    {"level": "warning", "message": "3 cells show fewer than 200 genes: <kept>.", "remedy": ""},
)
PROVENANCE = {
    "model": "hvg-pca",
    "weights_hash": "sha256:0",
    "recipe": 1,
    "settings": {"max_length": "1200"},
    "precision": "float32",
    "device": "cpu",
    "reference": "made-up",
    "reference_date": "2026-11-01",
    "trained_on": np.array(["set-a (GSE1)", "set-b (GSE2)"], dtype=object),
    "held_out": {"protocol": "leave one study out", "verdict": "Close to chance.", "metric": "auroc", "value": 0.56,
                 "low": 0.41, "high": 0.7, "constant": 0.5},
    "calibration": "isotonic",
    "novelty_threshold": 0.9,
    "threshold": 0.5,
    "n_genes_matched": 900,
    "n_genes_model": 1000,
    "share_genes": 0.9,
    "share_counts": 0.95,
    "map": "umap",
    "n_laid_out": 300,
    "n_cells_in_reference": 0,
    "seed": 0,
    "version": "0.1.0",
    "date": "2026-11-20T10:00:00Z",
    "use": "Research use only; not for treatment decisions.",
}  # fmt: skip


def predicted(n_cells: int = 300, *, labels: bool = True, samples: bool = True, novel: float = 0.1) -> AnnData:
    rng = np.random.default_rng(0)
    p = rng.beta(0.6, 0.6, n_cells).astype(np.float32)
    obs = pd.DataFrame(
        {
            "n_genes_by_counts": rng.integers(200, 4000, n_cells),
            "cell type [x]": rng.choice(["T cell", "malignant"], n_cells),
            "response": pd.Categorical(np.where(p >= 0.5, "resistant", "sensitive")),
            "p_resistant": p,
            "novelty": rng.random(n_cells).astype(np.float32),
            "novel": rng.random(n_cells) < novel,
            "cluster": pd.Categorical(rng.integers(0, 4, n_cells).astype(str)),
        },
        index=pd.Index([f"cell-{i}" for i in range(n_cells)]),
    )
    if samples:
        obs["sample"] = [f"sample-{i % 5}" for i in range(n_cells)]
    if labels:
        obs["response_given"] = rng.choice(["sensitive", "resistant"], n_cells)
    adata = AnnData(np.ones((n_cells, 2), dtype=np.float32), obs=obs)
    adata.obsm["X_umap"] = rng.normal(size=(n_cells, 2)).astype(np.float32)
    adata.uns["scdrugmap"] = {"prediction": {**PROVENANCE, "sample_column": "sample" if samples else ""}}
    return adata


def make_job(settings: Settings, state: store.State, adata: AnnData | None = None, **changes: Any) -> str:
    """Write a job in a state, with results when it is done; return its id."""
    job_id, now = store.new_id(), time.time()
    job = store.create(settings.jobs, job_id)
    (job / store.UPLOAD).mkdir()
    (job / store.UPLOAD / "tumour.h5ad").write_bytes(b"cells")
    status = store.JobStatus(job_id, state, "tumour.h5ad", 5, created=now, updated=now, checks=CHECKS)
    store.write_status(job, dataclasses.replace(status, **changes))
    if adata is not None:
        output.write(adata, job / store.RESULTS["csv"])
        output.write(adata, job / store.RESULTS["h5ad"])
        write_json(job / store.RESULTS["summary"], summary(adata))
    return job_id
