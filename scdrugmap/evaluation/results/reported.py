"""The numbers that the scDrugMap paper states, in the words and columns of our own scores.

`reported.csv` holds them as they were read, with the publication (`reference`), where in it (`read_from`), and the
cells and sensitive cells of the stratum from the paper's supplementary table 2, from which its constant value follows.
They are drawn apart from what was measured here (`source` = "reported") and have no run behind them.
"""

from __future__ import annotations

import hashlib
import importlib.resources
import io

import polars as pl

LLMS = ("gpt-4o-mini", "llama3-8b")


def reported() -> pl.DataFrame:
    """Return one row a stated number: the columns of the scores, then `reference`, `read_from` and `stated_strategy`.

    The paper's "zero-shot" is a frozen encoder whose head was trained on other data sets: strategy `freeze`, protocol
    `cross-data`, 0 shots; an LLM's is `prompt`, since nothing is trained. Cross-data rows have 0 shots and pooled rows
    none. Splits are by cell (pooled) and by data set (cross-data); `train` and `test` name the collection. The paper's
    F1 has sensitive as its positive class, as ours.
    """
    text = importlib.resources.files("scdrugmap.evaluation.results").joinpath("reported.csv").read_bytes()
    stated = pl.read_csv(io.BytesIO(text), schema_overrides={"value": pl.Float64})
    cross = pl.col("protocol") == "cross-data"
    zero_shot = pl.col("strategy") == "zero-shot"
    return stated.select(
        run_id=pl.Series([_row_id(row) for row in stated.iter_rows()]),
        model="model",
        strategy=pl.when(~zero_shot)
        .then("strategy")
        .when(pl.col("model").is_in(LLMS))
        .then(pl.lit("prompt"))
        .otherwise(pl.lit("freeze")),
        shots=pl.when(cross).then(0).otherwise(None).cast(pl.Int64),
        head=pl.when(pl.col("model").is_in(LLMS)).then(pl.lit("prompt")).otherwise(pl.lit("mlp")),
        protocol="protocol",
        split_by=pl.when(cross).then(pl.lit("dataset")).otherwise(pl.lit("cell")),
        facet="facet",
        facet_value="value_of_facet",
        train=pl.concat_list("collection"),
        test=pl.concat_list("collection"),
        fold=pl.lit("all"),
        seed=pl.lit(None, dtype=pl.Int64),
        metric="metric",
        value="value",
        ci_low=pl.lit(None, dtype=pl.Float64),
        ci_high=pl.lit(None, dtype=pl.Float64),
        n="cells",
        prevalence=pl.col("cells_sensitive") / pl.col("cells"),
        source=pl.lit("reported"),
        simulated=pl.lit(False),
        variant=pl.lit(""),
        design=pl.lit(""),
        reference="reference",
        read_from="read_from",
        stated_strategy="strategy",
    )


def _row_id(row: tuple[object, ...]) -> str:
    return "reported-" + hashlib.sha256("|".join(map(str, row)).encode()).hexdigest()[:8]
