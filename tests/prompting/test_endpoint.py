"""A real server that is not ours: `transformers serve` in a process of its own."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import time

import pytest
from prompting_cells import CARD, CELLS
from scripted_endpoint import (
    KEY,
)

from scdrugmap.prompting.asker import PromptRunner
from scdrugmap.prompting.settings import PromptSettings

TINY = """
import sys
from tokenizers import Tokenizer, decoders, models, pre_tokenizers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast
import torch
torch.manual_seed(0)
words = ["<s>", "</s>", "<unk>", *sorted(pre_tokenizers.ByteLevel.alphabet())]
tokenizer = Tokenizer(models.BPE(vocab={word: n for n, word in enumerate(words)}, merges=[], unk_token="<unk>"))
tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
tokenizer.decoder = decoders.ByteLevel()
fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token="<s>", eos_token="</s>", unk_token="<unk>")
fast.chat_template = "{% for message in messages %}{{ message['role'] }}: {{ message['content'] }}\\n{% endfor %}"
fast.save_pretrained(sys.argv[1])
config = LlamaConfig(vocab_size=len(words), hidden_size=16, intermediate_size=32, num_hidden_layers=1,
                     num_attention_heads=2, num_key_value_heads=2, bos_token_id=0, eos_token_id=1)
LlamaForCausalLM(config).save_pretrained(sys.argv[1])
from transformers.cli.serve import Serve
Serve(sys.argv[1], host="127.0.0.1", port=int(sys.argv[2]), device="cpu")
"""


@pytest.fixture
def transformers_server(tmp_path, monkeypatch):
    """`transformers serve` with a tiny random causal model, in a process of its own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    model = str(tmp_path / "tiny")
    with (tmp_path / "log").open("w") as log:
        command = [sys.executable, "-c", TINY, model, str(port)]
        process = subprocess.Popen(command, env=environment, stdout=log, stderr=subprocess.STDOUT)
    try:
        deadline = time.monotonic() + 120
        while not _answers(port):
            assert process.poll() is None, (tmp_path / "log").read_text()
            assert time.monotonic() < deadline, (tmp_path / "log").read_text()
            time.sleep(0.1)
        monkeypatch.setenv("OPENAI_BASE_URL", f"http://127.0.0.1:{port}/v1")
        monkeypatch.setenv("OPENAI_API_KEY", KEY)
        yield model
    finally:
        process.kill()
        process.wait()


def _answers(port: int) -> bool:
    import urllib.error
    import urllib.request

    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=5) as response:
            return response.status == 200
    except (urllib.error.URLError, ConnectionError, TimeoutError):
        return False


def test_a_real_server_with_a_model_that_talks_nonsense(transformers_server, tmp_path):
    given = {"name": transformers_server, "retries": 1, "cells_per_request": 2, "timeout": 60.0}
    asker = PromptRunner(PromptSettings.from_card(CARD, given), folder=tmp_path / "prompts")
    found = asker.ask(CELLS[:4])
    assert found.failed.all()
    assert found.problems == {"unreadable": 8}
    assert asker.budget.n_paid == 4
    assert asker.budget.input_tokens > 1000
    assert transformers_server in found.model_versions[0]
    assert len(list((tmp_path / "prompts").glob("*/*.json"))) == 4
