# A GPU Hugging Face Space (Docker SDK) and any other container host. CPU works too; torch's wheel carries CUDA.
FROM python:3.11-slim

ENV PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    PIP_NO_CACHE_DIR=1 \
    SCDRUGMAP_PUBLIC=1 \
    SCDRUGMAP_CACHE=/data

# Spaces run containers as user 1000; /data is the mounted storage there and a plain folder elsewhere.
RUN useradd --create-home --uid 1000 app && mkdir -p /data && chown app:app /data
WORKDIR /home/app/scdrugmap

# Dependencies first: they change less often than the code.
COPY --chown=app:app requirements.txt requirements.lock ./
RUN pip install --constraint requirements.lock --requirement requirements.txt
COPY --chown=app:app . .
RUN pip install --constraint requirements.lock --editable '.[minilm]'

USER app
EXPOSE 8501
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s \
    CMD python -c "import urllib.request as r; r.urlopen('http://127.0.0.1:8501/_stcore/health', timeout=4)"
CMD ["scdrugmap", "app", "--host", "0.0.0.0", "--port", "8501"]
