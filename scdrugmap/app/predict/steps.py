"""The steps of the Predict page up to the result: bring, check, choose, wait."""

from __future__ import annotations

import html
from collections.abc import Mapping
from typing import BinaryIO

import polars as pl
import streamlit as st

from scdrugmap.app.jobs import endpoints, prompt_options
from scdrugmap.app.jobs import service as jobs
from scdrugmap.app.jobs.store import JobStatus
from scdrugmap.app.predict import prompt_form
from scdrugmap.app.predict import queries as predict_queries
from scdrugmap.app.predict import text as predict_text
from scdrugmap.app.ui import format, glossary, layout, queries, widgets

TYPES = ["h5ad", "h5", "zip", "csv", "tsv", "gz"]
MARKS = {"ok": ("✓", "#2E8B6F"), "warning": ("!", "#C9650E"), "stop": ("✕", "#C2375B")}
_STAGES = {
    "": "Waiting for its turn",
    "read": "Reading and checking the file",
    "load": "Loading the model",
    "embed": "Embedding the cells",
    "score": "Scoring them against the reference",
    "ask": "Asking the model",
    "map": "Drawing the map",
    "write": "Writing the files",
}
LOCAL = [stage for stage in _STAGES if stage != "ask"]
ASKED = [stage for stage in _STAGES if stage not in ("embed", "score")]


def bring() -> None:
    """Ask for a file, or offer the example; what happens to a file stands before the place where it is dropped."""
    here = queries.settings()
    left, right = st.columns([3, 2], gap="large")
    with left:
        st.subheader("1 · Bring cells", anchor=False)
        st.markdown(predict_text.privacy(here.keep_jobs_hours, public=here.public))
        file = st.file_uploader(
            f"One file with raw counts, up to {here.max_upload_mb / 1024:.3g} GB: .h5ad, 10x .h5, zipped .mtx triplet, "
            ".csv or .tsv (cells × genes, may be .gz)",
            type=TYPES, key="upload", max_upload_size=here.max_upload_mb,
        )  # fmt: skip
        if file is not None:
            _received(file, file.name)
    with right:
        st.subheader("No file at hand?", anchor=False)
        st.markdown(
            "Simulated melanoma cells with known labels show every step. They are called simulated wherever they "
            "appear."
        )
        if st.button("Try the example", icon=":material/science:", key="example"):
            _received(None, "")
        with st.expander("What must be in the file?", icon=":material/checklist:"):
            st.markdown(predict_text.WHAT_MUST_BE_IN_THE_FILE)


def _received(stream: BinaryIO | None, name: str) -> None:
    service = jobs.service()
    with st.spinner("Receiving the cells"):
        job_id = service.receive_example() if stream is None else service.receive(stream, name)
    service.check(job_id)
    st.query_params["job"] = job_id
    st.rerun()


def title(status: JobStatus) -> None:
    """Name the file of the job, say that simulated cells are simulated, and offer to delete everything."""
    with st.container(horizontal=True, vertical_alignment="center", horizontal_alignment="distribute"):
        name = "Example: simulated melanoma" if status.simulated else status.file
        st.markdown(f"#### {format.plain(name)}")
        with st.container(horizontal=True, width="content"):
            if status.simulated:
                st.badge("simulated cells", icon=":material/science:", color="gray", help=glossary.tip("simulated"))
            st.button("New file", icon=":material/add:", on_click=widgets.close, args=("job",), key="new")
            with st.popover("Delete", icon=":material/delete:"):
                st.markdown("Deletes the file and every result of it from this server, now.")
                st.button("Delete everything", type="primary", on_click=_delete, args=(status.job_id,), key="delete")


def _delete(job_id: str) -> None:
    jobs.service().delete(job_id)
    predict_queries.forget(job_id)
    widgets.close("job")
    st.toast("The file and its results are deleted.", icon=":material/delete:")


def checks(status: JobStatus) -> None:
    """List what the loader found: a mark, what was seen, and the remedy of what stops."""
    if not status.checks:
        return
    st.subheader("2 · Checks", anchor=False)
    rows = []
    for check in (check for check in status.checks if check["message"] != status.error):
        mark, colour = MARKS.get(check["level"], MARKS["warning"])
        remedy = f' <span class="fix">{html.escape(check["remedy"])}</span>' if check["remedy"] != status.remedy else ""
        head = f'<b style="color:{colour}" title="{check["level"]}">{mark}</b>'
        rows.append(f"<li>{head}{html.escape(check['message'])}{remedy}</li>")
    st.html(f'<ul class="sdm-checks">{"".join(rows)}</ul>')


def failed(status: JobStatus) -> None:
    """Say why a job stopped and what mends it."""
    if status.state == "cancelled":
        kept = "answered" if endpoints.is_asked(status.options.get("model", "")) else "embedded"
        st.info(f"Stopped. What was {kept} is kept while this page is open, so a second run begins where this one "
        "ended.",
                icon=":material/stop_circle:")  # fmt: skip
    elif status.state == "failed":
        st.error(format.plain(status.error), icon=":material/error:")
        if status.remedy:
            layout.remedy(format.plain(prompt_options.in_the_app(status.remedy)))
    if jobs.service().has_earlier(status):
        st.button(
            "Back to the result of the run before", icon=":material/undo:", key="restore",
            on_click=jobs.service().restore, args=(status.job_id,),
        )  # fmt: skip


def choose(status: JobStatus) -> None:
    """Ask for a model that is ready here, and run it; say of the others what they need."""
    if any(check["level"] == "stop" for check in status.checks) or not (status.upload_kept or status.simulated):
        return
    ready, remotes = predict_queries.predictors(), endpoints.remotes(queries.settings())
    able = {f"{remote.card.key}/": remote for remote in remotes if not remote.reason}
    st.subheader("3 · Choose", anchor=False)
    if ready.is_empty():
        layout.nothing_yet(
            "No model has a reference on this machine.",
            "A reference turns a model's embeddings into P(resistant); fit one on labelled cells.",
            "scdrugmap reference fit --model scgpt-mini --data labelled.h5ad",
        )
    if able or not ready.is_empty():
        _run(status, _predictor(status, ready, able), able)
    for remote in remotes:
        if remote.reason:
            _off(remote)
    others = predict_queries.waiting()
    if others.height:
        with st.expander(f"{others.height} more models need weights or a reference", icon=":material/download:"):
            for row in others.iter_rows(named=True):
                st.markdown(f"**{row['title']}**: {row['needs']}. {_card_of(row['model'])}")
                st.code(row["commands"], language="bash", wrap_lines=True)


def _off(remote: endpoints.Remote) -> None:
    """Say why a model that is asked cannot be asked here, and what the person who runs the app does about it."""
    title = remote.card.title
    with st.expander(f"{title} is asked over the network, and is off here", icon=":material/cloud_off:"):
        st.markdown(f"{remote.card.summary} {format.plain(remote.reason)} {_card_of(remote.card.key)}")
        if remote.commands:
            st.markdown("Where the app is started:")
            st.code(remote.commands, language="bash", wrap_lines=True)


def _card_of(model: str) -> str:
    """Return a link to the card of a model."""
    return f"[Its card](models?model={model})"


def _predictor(status: JobStatus, ready: pl.DataFrame, able: Mapping[str, endpoints.Remote]) -> str:
    """Ask for one of the references, or of the models that are asked; return "model/reference"."""
    keys = [*(ready["model"] + "/" + ready["name"]), *able]
    labels = [*ready["label"], *(endpoints.label(remote.card) for remote in able.values())]
    n_cells = int(status.input.get("n_cells", 0))
    captions = [f"{row['caption']} {predict_queries.time_needed(row['model'], n_cells)}"
                for row in ready.iter_rows(named=True)]  # fmt: skip
    captions += [f"{remote.card.summary} The endpoint decides how long it takes." for remote in able.values()]
    wanted = [key for key in keys if key.startswith(f"{status.options.get('model') or widgets.opened('model')}/")]
    chosen = st.radio(
        "Model and the reference it was fitted on", keys, index=keys.index(wanted[0]) if wanted else 0, key="predictor",
        format_func=dict(zip(keys, labels, strict=True)).get, captions=captions, help=glossary.tip("reference"),
    )  # fmt: skip
    return str(chosen)


def _run(status: JobStatus, chosen: str, able: Mapping[str, endpoints.Remote]) -> None:
    """Offer to run; a model that is asked wants to know what it is told, consent and a limit first."""
    model, _, reference = chosen.partition("/")
    remote, service = able.get(chosen), jobs.service()
    terms = {} if remote is None else prompt_form.terms(status, remote, service.n_answers(status.job_id))
    again = "Run again" if status.work == "predict" else "Run"
    with st.container(horizontal=True, vertical_alignment="center"):
        pressed = st.button(again, type="primary", icon=":material/play_arrow:", key="run", disabled=terms is None)
        if pressed and terms is not None:  # a press may arrive together with a change that disables the button
            service.run(status.job_id, jobs.JobOptions(model, reference or None, **terms))
            st.rerun()
        if remote is None:
            st.caption(f"Computes on {queries.device()}. Nothing leaves this machine.")
        elif terms is None:
            st.caption(f"Runs at {format.plain(remote.host)} once what is sent stands above and is agreed to.")
        else:
            st.caption(f"Computes at {format.plain(remote.host)}. What the box says leaves this machine; nothing else.")


def again(status: JobStatus) -> None:
    """Offer a finished job's cells another run: another model, or other words for the same one."""
    if status.upload_kept:
        with st.expander("Run these cells again, with another model or other words", icon=":material/replay:"):
            st.caption("The files above are replaced by those of the new run: download them first.")
            choose(status)


@st.fragment(run_every=1.0)
def watch(job_id: str) -> None:
    """Show how far the job is, and redraw the page when it has ended."""
    status = jobs.service().status(job_id)
    if not status.active:
        st.rerun()
    with st.container(border=True):
        stages = ASKED if endpoints.is_asked(status.options.get("model", "")) else LOCAL
        head, steps = ("4 · Running", stages) if status.work == "predict" else ("2 · Checking", ["", "read"])
        at = steps.index(status.stage) if status.stage in steps else 0
        part = min(status.done / status.total, 1.0) if status.total else 0.0
        counted = f"{format.count(status.done)} of {format.count(status.total)} cells" if status.total else ""
        st.markdown(f"**{head}** · {_STAGES.get(status.stage, status.stage)}")
        step = f"Step {at} of {len(steps) - 1}" if at else "Starting"
        text = " · ".join(word for word in (step, counted, predict_text.remaining(status.eta_seconds)) if word)
        st.progress((max(at - 1, 0) + part) / (len(steps) - 1), text=text)
        with st.container(horizontal=True, vertical_alignment="center"):
            if st.button("Cancel", icon=":material/stop:", key="cancel"):
                jobs.service().cancel(job_id)
                st.rerun()
            st.caption("You can close this tab: the link in the address bar brings you back.")
