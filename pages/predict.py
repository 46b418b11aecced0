"""Predict: bring cells, see the checks, choose a model, run, read the result; the job's link survives a reload."""

from __future__ import annotations

import streamlit as st
from scdrugmap.app.jobs import service as jobs
from scdrugmap.app.predict import steps, view
from scdrugmap.app.ui import layout, widgets
from scdrugmap.errors import UnknownName


def show(job_id: str) -> None:
    service = jobs.service()
    try:
        status = service.status(job_id)
    except UnknownName as error:
        layout.problem(error)
        widgets.back("Bring other cells", "job")
        return
    jobs.hold(job_id)
    steps.title(status)
    if status.state == "uploaded":
        service.check(job_id)
        st.rerun()
    elif status.active:
        steps.checks(status)
        steps.watch(job_id)
    elif status.state == "done":
        view.draw(status)
        steps.again(status)
    else:
        steps.failed(status)
        steps.checks(status)
        steps.choose(status)


with layout.page("predict"):
    key = widgets.opened("job")
    if key:
        show(key)
    else:
        steps.bring()
