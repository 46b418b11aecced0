"""The pages of the app: one frozen record each; navigation, links and tests are derived from them."""

from __future__ import annotations

from dataclasses import dataclass

from scdrugmap.registry import Registry


@dataclass(frozen=True)
class Page:
    """One page. `key` is its path in the URL; the default page answers at the root."""

    key: str
    file: str  # relative to app.py
    title: str
    icon: str  # a Material symbol that Streamlit carries
    question: str  # what the page answers, shown under its title
    default: bool = False


PAGES = Registry[Page](
    "page",
    lambda: (
        Page(
            "home",
            "pages/home.py",
            "Home",
            ":material/biotech:",
            "Which cells of this tumour will resist?",
            default=True,
        ),
        Page(
            "datasets",
            "pages/datasets.py",
            "Datasets",
            ":material/dataset:",
            "Where do the labels come from, and what can they show?",
        ),
        Page(
            "models",
            "pages/models.py",
            "Models",
            ":material/leaderboard:",
            "How far can a model be trusted, and against what?",
        ),
        Page(
            "transfer",
            "pages/transfer.py",
            "Transfer",
            ":material/grid_on:",
            "Trained on one data set: on which others does it hold?",
        ),
        Page(
            "predict",
            "pages/predict.py",
            "Predict",
            ":material/upload_file:",
            "Which of your cells would resist, and which has no model seen?",
        ),
    ),
)
