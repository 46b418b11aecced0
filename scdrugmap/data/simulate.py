"""Simulated cells with a known truth: for tests, for "try an example", and for showing what a leaky split does.

Counts are negative binomial. A gene's mean is the cell's library size times its share in the cell's profile; profiles,
dispersions and library sizes were fitted on real counts by `scripts/fit_simulator.py` and are package data (parameters,
never cells). On top stand what a benchmark must tell apart: a response program (real genes of the literature),
patients, samples, data sets and studies with effects of their own, cells copied between data sets, and labels that go
with the sample. What comes out says that it is simulated: `uns["scdrugmap"]["simulated"]` and every `obs["dataset"]`.
"""

from __future__ import annotations

import functools
import json
from dataclasses import asdict, dataclass
from importlib import resources

import numpy as np
import pandas as pd
import scipy.sparse as sp
from anndata import AnnData

from scdrugmap.data.labels import RESISTANT, SENSITIVE, SIMULATED
from scdrugmap.errors import InvalidInput

_BLOCK = 2048  # cells drawn at a time, so that memory stays flat
GENE_SD = 0.4  # of a sample's log shift of each gene at batch=1; data sets and studies have half of it
SIZE_SD = 0.4  # of a sample's log library size at batch=1
PROGRAM_LOG_CHANGE = 1.0  # natural log between a fully resistant and a fully sensitive cell at effect=1
PENETRANCE = (5.0, 2.0)  # Beta of how far a single cell has gone along the program


@dataclass(frozen=True)
class Parameters:
    """What was fitted on real counts, G genes in the order in which they are taken."""

    symbols: np.ndarray  # (G,)
    ensembl_ids: np.ndarray  # (G,)
    program: np.ndarray  # (G,) +1 rises with resistance, -1 falls, 0 does not move
    dispersion: np.ndarray  # (G,)
    profiles: np.ndarray  # (K, G) natural log of each gene's share, one row a kind of cancer cell
    immune: np.ndarray  # (G,) the same for blood cells
    libraries: dict[str, dict[str, float]]  # protocol -> log_mean, log_sd of molecules per cell


@functools.cache
def parameters() -> Parameters:
    """Read the fitted parameters (package data)."""
    folder = resources.files(__package__)
    with resources.as_file(folder / "simulate_params.tsv.gz") as path:
        table = pd.read_csv(path, sep="\t", keep_default_na=False)
    facts = json.loads((folder / "simulate_params.json").read_text())
    profiles = table.iloc[:, 4:].astype(float) * np.log(10)
    return Parameters(
        symbols=table["symbol"].to_numpy(object),
        ensembl_ids=table["ensembl_id"].to_numpy(object),
        program=table["program"].map({"": 0, "resistant": 1, "sensitive": -1}).to_numpy(),
        dispersion=table["dispersion"].astype(float).to_numpy(),
        profiles=profiles.drop(columns="immune").to_numpy().T,
        immune=profiles["immune"].to_numpy(),
        libraries=facts["libraries"],
    )


@dataclass(frozen=True)
class SimulationPlan:
    """Options of one simulation; see `simulate`."""

    n_cells: int = 600
    n_genes: int = 2000
    n_samples: int = 6
    effect: float = 1.0
    batch: float = 0.5
    duplicates: int = 0
    confounded: bool = False
    seed: int = 0
    paired: bool = False
    n_datasets: int = 1
    n_studies: int = 1
    prevalence: float = 0.5
    spread: float = 0.0
    transfer: float = 0.8
    dropout: float = 0.0
    immune: float = 0.0
    protocol: str = "droplet"
    cancer_type: str = "Melanoma"
    tissue: str = "Tumor tissue"
    drug: str = "vemurafenib"
    drug_type: str = "Targeted therapy"

    def check(self) -> None:
        """Raise `InvalidInput` for options that cannot be met."""
        known = len(parameters().symbols)
        smallest = self.n_datasets * (2 if self.confounded else 1)
        rules = [
            (1 <= self.n_genes <= known, f"n_genes={self.n_genes}: the simulator knows 1 to {known} genes."),
            (1 <= self.n_studies <= self.n_datasets, f"n_studies={self.n_studies} with n_datasets={self.n_datasets}."),
            (self.n_samples >= smallest, f"n_samples={self.n_samples}: this plan needs at least {smallest}."),
            (self.n_cells >= 2 * self.n_samples, f"n_cells={self.n_cells}: at least two for each sample."),
            (self.duplicates == 0 or self.n_datasets > 1, "duplicates are planted across data sets: n_datasets is 1."),
            (self.protocol in parameters().libraries, f"protocol='{self.protocol}': {sorted(parameters().libraries)}."),
            *(
                (0 <= getattr(self, name) <= 1, f"{name}={getattr(self, name)}: a share between 0 and 1.")
                for name in ("prevalence", "transfer", "dropout", "immune")
            ),
        ]
        for holds, message in rules:
            if not holds:
                raise InvalidInput(f"Cannot simulate {message}", "Change that option of simulate().")


def simulate(
    n_cells: int = 600,
    n_genes: int = 2000,
    n_samples: int = 6,
    effect: float = 1.0,
    batch: float = 0.5,
    duplicates: int = 0,
    confounded: bool = False,
    seed: int = 0,
    **options: float | str,
) -> AnnData:
    """Return simulated raw counts with a known response, X CSR float32 (n_cells, n_genes).

    `effect` scales the response program (0: expression says nothing about the label), `batch` the shifts of patients,
    samples, data sets and studies (0: none). `confounded` gives every sample one label only, "pre" being sensitive and
    "post" resistant as in most published sets: with `effect=0` a split by cell then scores high and a split by
    sample at chance. `duplicates` sensitive cells of the first data set stand, barcode and counts, in every other too.
    Further options: `paired` (a confounded patient gives a pre and a post sample, so that a split by sample falls below
    chance and only one by patient is fair), `n_datasets`, `n_studies`, `prevalence` (share sensitive),
    `spread` (its standard deviation between samples), `transfer` (how much of the program studies share), `dropout`
    (chance that a single molecule goes unseen), `immune` (share of blood cells, which carry no label), `protocol`
    ("droplet", "plate"), `cancer_type`, `tissue`, `drug`, `drug_type`.

    obs has the columns of curated data plus `cell_type`; var_names are HGNC symbols with `var["ensembl_id"]`. The same
    options and seed give the same cells. Raises InvalidInput for options that cannot be met.
    """
    plan = SimulationPlan(n_cells, n_genes, n_samples, effect, batch, duplicates, confounded, seed, **options)  # type: ignore[arg-type]
    plan.check()
    rng = np.random.default_rng(seed)
    samples = _samples(plan, rng)
    obs = _cells(plan, samples, rng)
    counts = _counts(plan, samples, obs, rng)
    barcodes = np.array(["".join(letters) for letters in rng.choice(list("ACGT"), (n_cells, 16))], dtype=object)
    counts = _plant_duplicates(plan, obs, counts, barcodes)
    obs.index = pd.Index((obs["dataset"] + "_" + barcodes + "-1").to_numpy(str))
    genes = parameters()
    var = pd.DataFrame({"ensembl_id": genes.ensembl_ids[:n_genes]}, index=genes.symbols[:n_genes].astype(str))
    uns = {"scdrugmap": {"simulated": True, "simulation": asdict(plan)}}
    return AnnData(counts, obs=obs.drop(columns="unit"), var=var, uns=uns)


def example(*, labelled: bool = False) -> AnnData:
    """Return the app's example: a simulated melanoma of 1,200 cells in 6 samples, a fifth of them blood cells.

    Unlabelled by default: neither obs nor uns holds the truth. `labelled=True` adds `obs["response"]`, same cells.
    """
    adata = simulate(n_cells=1200, n_genes=3000, n_samples=6, seed=20260, immune=0.2, spread=0.25)
    adata.uns["scdrugmap"] = {"simulated": True}
    if not labelled:
        del adata.obs["response"]
    return adata


def _samples(plan: SimulationPlan, rng: np.random.Generator) -> pd.DataFrame:
    """One row a sample: where it belongs, what share of its cells is sensitive."""
    unit = np.arange(plan.n_samples)
    dataset = unit * plan.n_datasets // plan.n_samples
    rank = unit - np.searchsorted(dataset, dataset)  # place inside the data set
    study = dataset * plan.n_studies // plan.n_datasets
    share = np.clip(plan.prevalence + plan.spread * rng.standard_normal(plan.n_samples), 0, 1)
    patient = unit.astype(str)
    if plan.confounded:
        size = np.bincount(dataset)[dataset]
        n_sensitive = np.clip(np.round(plan.prevalence * size), 1, size - 1)
        share = (rank < n_sensitive).astype(float)
    if plan.confounded and plan.paired:
        turn = np.where(share > 0, rank, rank - n_sensitive).astype(int)  # first pre and first post: one patient
        patient = np.array([f"{home}p{index}" for home, index in zip(dataset, turn, strict=True)])
    return pd.DataFrame(
        {
            "dataset": [f"{SIMULATED}{index + 1}" for index in dataset],
            "study": [f"simulated-study-{index + 1}" for index in study],
            "sample": [f"simulated-{home + 1}-s{index + 1}" for home, index in zip(dataset, rank, strict=True)],
            "patient_or_line": [f"simulated-patient-{index + 1}" for index in pd.factorize(patient)[0]],
            "time_point": np.where(share > 0, "pre", "post") if plan.confounded else "pre",
            "share_sensitive": share,
        }
    )


def _cells(plan: SimulationPlan, samples: pd.DataFrame, rng: np.random.Generator) -> pd.DataFrame:
    """Obs of all cells, sample after sample; `unit` is the row of `samples`."""
    sizes = np.diff(np.linspace(0, plan.n_cells, plan.n_samples + 1).astype(int))
    unit = np.repeat(np.arange(plan.n_samples), sizes)
    rank = np.concatenate([rng.permutation(size) for size in sizes])
    sensitive = rank < np.round(samples["share_sensitive"].to_numpy() * sizes)[unit]
    obs = samples.drop(columns="share_sensitive").iloc[unit].reset_index(drop=True)
    obs.insert(0, "response", np.where(sensitive, SENSITIVE, RESISTANT).astype(object))
    for name in ("tissue", "cancer_type", "drug", "drug_type"):
        obs[name] = getattr(plan, name)
    obs["collection"] = "simulated"
    immune = rng.random(plan.n_cells) < plan.immune
    obs["cell_type"] = np.where(immune, "immune", "malignant")
    obs.loc[immune, "response"] = None
    obs["unit"] = unit
    return obs


def _shifts(names: pd.Series, sd: float, n_genes: int, rng: np.random.Generator) -> np.ndarray:
    """Return a random log shift of each gene for each distinct name, repeated by row, (samples, genes)."""
    code, distinct = pd.factorize(names)
    return rng.normal(0, sd, (len(distinct), n_genes))[code]


def _base(plan: SimulationPlan, samples: pd.DataFrame, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """Log shares of cancer cells by sample, and the log shift that blood cells share with them, both (samples, G)."""
    profiles = parameters().profiles[:, : plan.n_genes]
    code, patients = pd.factorize(samples["patient_or_line"])
    apart = min(1.0, plan.batch)
    mixture = rng.dirichlet(np.ones(len(profiles)), len(patients))[code]  # (samples, K)
    profile = np.log((apart * mixture + (1 - apart) / len(profiles)) @ np.exp(profiles))
    shift = _shifts(samples["sample"], GENE_SD * plan.batch, plan.n_genes, rng)
    for column in ("dataset", "study"):
        shift += _shifts(samples[column], GENE_SD / 2 * plan.batch, plan.n_genes, rng)
    return profile + shift, shift


def _program(plan: SimulationPlan, samples: pd.DataFrame, rng: np.random.Generator) -> np.ndarray:
    """Log change of each gene from sensitive to resistant, by sample, (samples, G)."""
    direction = parameters().program[: plan.n_genes]
    shared = rng.gamma(4.0, 0.25, plan.n_genes)  # mean 1: some genes move more than others
    code, studies = pd.factorize(samples["study"])
    by_study = rng.normal(0, 1, (len(studies), plan.n_genes))
    strength = plan.transfer * shared + (1 - plan.transfer) * by_study
    return plan.effect * PROGRAM_LOG_CHANGE * (direction * strength)[code]


def _counts(plan: SimulationPlan, samples: pd.DataFrame, obs: pd.DataFrame, rng: np.random.Generator) -> sp.csr_matrix:
    """Draw the counts, CSR float32 (cells, genes)."""
    genes = parameters()
    malignant, shift = _base(plan, samples, rng)
    program = _program(plan, samples, rng)
    library = genes.libraries[plan.protocol]
    unit, n = obs["unit"].to_numpy(), plan.n_cells
    log_size = rng.normal(library["log_mean"], library["log_sd"], n)
    log_size += rng.normal(0, SIZE_SD * plan.batch, plan.n_samples)[unit]
    side = np.where(obs["response"] == RESISTANT, 0.5, -0.5) * rng.beta(*PENETRANCE, n)
    immune = (obs["cell_type"] == "immune").to_numpy()
    side[immune] = 0.0
    blood = genes.immune[: plan.n_genes] + shift
    dispersion = genes.dispersion[: plan.n_genes]
    blocks = []
    for start in range(0, n, _BLOCK):
        part = slice(start, start + _BLOCK)
        log_share = np.where(immune[part, None], blood[unit[part]], malignant[unit[part]])
        mean = np.exp(log_size[part, None] + log_share + side[part, None] * program[unit[part]])  # (cells, genes)
        drawn = rng.poisson(rng.gamma(1 / dispersion, mean * dispersion))
        if plan.dropout:
            drawn[rng.random(drawn.shape) < plan.dropout**drawn] = 0
        blocks.append(sp.csr_matrix(drawn.astype(np.float32)))
    return sp.vstack(blocks, format="csr")


def _plant_duplicates(
    plan: SimulationPlan, obs: pd.DataFrame, counts: sp.csr_matrix, barcodes: np.ndarray
) -> sp.csr_matrix:
    """Put the first data set's first sensitive cells in place of as many sensitive cells of every other data set."""
    if not plan.duplicates:
        return counts
    rows = np.arange(plan.n_cells)
    sensitive = (obs["response"] == SENSITIVE).to_numpy()
    places = [np.flatnonzero(sensitive & (obs["dataset"] == name).to_numpy()) for name in obs["dataset"].unique()]
    fewest = min(map(len, places))
    if fewest < plan.duplicates:
        message = f"Cannot simulate duplicates={plan.duplicates}: a data set has {fewest} sensitive cells."
        raise InvalidInput(message, "Ask for fewer duplicates, or more cells.")
    for place in places[1:]:
        rows[place[: plan.duplicates]] = places[0][: plan.duplicates]
    barcodes[:] = barcodes[rows]
    return counts[rows]
