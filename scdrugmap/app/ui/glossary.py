"""What the words on screen mean, once: the help tips of every page."""

from __future__ import annotations

WORDS = {
    "data set": "Cells of one accession under one regimen and time point, with a rule that labels them.",
    "study": "All data sets of one GEO accession. They may share patients and even cells.",
    "collection": "primary: 36 data sets, 326,751 cells. external: 24 data sets, 168,486 cells.",
    "response": "sensitive or resistant, as the source study labelled the sample. Sensitive is the positive class "
    "of F1.",
    "facet": "What data sets are grouped by: all, tissue, cancer type, drug type or regimen.",
    "model": "An encoder that turns a cell's counts into a vector. Baselines are listed with the models on purpose.",
    "strategy": "freeze: the encoder is fixed and a head is trained on its embeddings. lora: adapters and head are "
    "trained together. prompt: an LLM is asked, nothing is trained.",
    "shots": "Labelled cells per class of the target data set that training saw. 0 is zero-shot.",
    "transfer": "A model is trained on one data set and tested on another. Colour is its distance to the constant "
    "classifier of the tested data set: blue is better, orange worse, faint is no different.",
    "order": "similarity puts data sets side by side that teach and learn alike; the other orders group them by name, "
    "cancer or drug type.",
    "compare with": "Colours then show the difference to this entry on the same pairs; a dot says that the two "
    "intervals overlap.",
    "critical difference": "Two mean ranks that differ by less cannot be told apart by Nemenyi's test at 5 % "
    "(Demsar 2006). Entries under one bar are not told apart.",
    "seed": "Folds, shots and first weights are drawn at random. Each seed is a run of its own; scores are means.",
    "data sets won": "On how many data sets the entry has the best score of all that were run on the same cells; "
    "ties share.",
    "reliability": "Of the cells that were given P(resistant) of about 0.8, eight in ten should be resistant: then the "
    "curve lies on the diagonal. ECE is the mean distance to it, weighted by cells.",
    "zero-shot": "No labelled cell of the target was seen. The paper's 'zero-shot' 0.858 is a frozen encoder with a "
    "head "
    "trained on other data sets of the same tissue, not a prediction without labels.",
    "protocol": "pooled: k-fold over the merged cells of a facet. cross-data: train on some data sets, test on "
    "another.",
    "split by": "What is kept whole when cells are divided into training and test. cell: random cells, as in the "
    "paper; "
    "cells of one patient stand on both sides, so the score leaks. sample, dataset, study: nothing of the test unit "
    "was "
    "seen in training.",
    "head": "The classifier on top of the embedding: the paper's MLP, a logistic regression, or another.",
    "run": "One experiment's immutable record: what was run, on what, with which versions, and what came out.",
    "constant": "The score of a classifier that calls every cell sensitive and has seen no data. "
    "Its F1 is 2p/(1+p), where p is the share of sensitive cells. A model that does not clear it has learnt nothing "
    "useful.",
    "interval": "95 % bootstrap interval. It is drawn over samples where there are several, else over cells; "
    "the caption says which.",
    "leakage gap": "How much better the score is when split by cell than under the leak-safe split on the same "
    "cells: how much of the score "
    "was recognising the patient or plate instead of the response.",
    "delta": "Score minus that of the best baseline on the same cells and split.",
    "measured": "Computed here, from a run whose record you can open. Drawn filled.",
    "reported": "A number that a paper states. Drawn hollow. We have not reproduced it.",
    "simulated": "Computed on simulated cells. It shows that the code works, not that biology does. Drawn dashed.",
    "novelty": "How far a cell lies from everything the reference was trained on, in the model's embedding. "
    "A novel cell gets a score like any other, but nothing stands behind it.",
    "label basis": "sample response: the patient or sample was judged. time point: cells before treatment are called "
    "sensitive and cells after it resistant, which measures the treatment's effect as much as resistance.",
    "confounded": "Label and sample are the same thing here (one sample per class), so no split inside this data "
    "set can "
    "tell resistance from a batch effect. Only cross-data scores count as evidence.",
    "shared controls": "The same cells appear in other data sets of this study. They are counted once before any "
    "split.",
    "corrected": "The source's table has a slip in this row; the card says what we changed and why.",
    "F1": "Harmonic mean of precision and recall with sensitive as the positive class, as in the paper.",
    "reference": "The head that turns embeddings into P(resistant), with the labelled cells it was fitted on.",
    "P(resistant)": "The calibrated probability that a cell carries the label resistant, by the reference used.",
    "calibration": "A map from raw scores to probabilities, fitted on studies that the head had not seen.",
    "cells/s": "Cells embedded a second, end to end at float32, as benchmarks/embed.py measured it at the published "
    "size; docs/performance.md has the machine.",
    "coverage": "The share of your genes, and of your counts, that the model's vocabulary knows.",
}


def tip(word: str) -> str:
    """Return the definition of a word on screen."""
    return WORDS[word]


def split(word: str) -> str:
    """Return the words for what a split keeps whole: `patient_or_line` is written out, `dataset` is two words."""
    return {"dataset": "data set"}.get(word, word.replace("_", " "))
