"""What a run's scores rest on, in words."""

from __future__ import annotations

from scdrugmap.app.ui.format import count, percent
from scdrugmap.app.ui.glossary import split
from scdrugmap.app.ui.sentence import made_on
from scdrugmap.evaluation.results.run_record import FoldScores, Run


def run_caption(whole: FoldScores, record: Run) -> list[str]:
    """Caption of the metrics of one run."""
    unit = (
        f"95 % bootstrap interval over {count(whole.n_units)} {whole.unit}s" if whole.unit else "no interval was drawn"
    )
    share = f", {percent(whole.prevalence)} of them sensitive" if whole.prevalence is not None else ""
    return [
        f"{count(whole.n)} tested cells{share}",
        f"{record.experiment.protocol}, split by {split(record.experiment.split_by)}, out of fold",
        unit,
        made_on(simulated=record.is_simulated(record.experiment.datasets), date=record.environment.date[:10]),
    ]
