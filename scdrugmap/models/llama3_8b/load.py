"""A text model from a folder as the Hub has it: config.json, tokenizer.json and safetensors.

Code that a repository brings is never run (`trust_remote_code` stays off) and pickles are refused. Every tensor of the
network must be in the files; what the files hold beside it must be a head that the embedding does without.
"""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from scdrugmap.errors import InvalidInput, WeightsInvalid
from scdrugmap.models import weights as store
from scdrugmap.models.card import ModelCard
from scdrugmap.models.checkpoint import read_json
from scdrugmap.models.encoder import Encoder
from scdrugmap.models.llama3_8b.network import Config, Network
from scdrugmap.models.llama3_8b.tokens import Tokenizer

log = logging.getLogger(__name__)
INDEX = "model.safetensors.index.json"
# Heads and leftovers of pretraining; the embedding uses none of them.
UNUSED = ("lm_head.", "cls.", "pooler.", "score.", "classifier.", "vocab_", "embeddings.position_ids")
# Names that attention's linears bear in the models of transformers; LoRA adapts the first pair that a network has.
TARGETS = (("q_proj", "v_proj"), ("query", "value"), ("q_lin", "v_lin"), ("q", "v"), ("query_key_value",), ("Wqkv",))


def files(folder: Path) -> dict[str, Path]:
    """Files of a folder in the Hub's layout; the tensors may be in several."""
    found = {"config": folder / "config.json", "tokenizer": folder / "tokenizer.json"}
    if (folder / INDEX).is_file():
        parts = sorted(set(read_json(folder / INDEX, ("weight_map",))["weight_map"].values()))
        return found | {"index": folder / INDEX} | {f"weights {part}": folder / Path(part).name for part in parts}
    return found | {"weights": folder / "model.safetensors"}


def load(
    card: ModelCard, folder: Path, settings: Mapping[str, Any], device: torch.device, precision: str, converted: Path
) -> Encoder:
    """Give the encoder of a folder; `converted` is where the hashes of its files are remembered.

    Raises `WeightsMissing`, `WeightsInvalid`, and `InvalidInput` for settings that do not fit the model.
    """
    refuse_pickles(folder)
    found = store.upstream_files(card, folder, importlib.import_module(__name__), settings)
    described = read_json(found["config"], ("model_type",))
    vocabulary = {
        "tokenizer": found["tokenizer"].read_text(encoding="utf-8"),
        "positions": described.get("max_position_embeddings", described.get("n_positions", 512)),
    }
    tokenizer = Tokenizer(vocabulary, settings)
    placed = placement(device, settings["quantise"])
    network = Network(Config(described), settings, _pretrained(folder, described, precision, placed))
    if "device_map" not in placed:
        network.to(device)
    weights_hash = store.remembered_hash(found, converted)
    adapted = replace(card, lora_targets=targets(network) or card.lora_targets)
    return Encoder(adapted, tokenizer, network.eval(), settings, weights_hash, device, precision)


def placement(device: torch.device, quantise: str) -> dict[str, Any]:
    """Give the arguments by which transformers spreads a model over devices, or packs it into 4 bits.

    "cuda" without a number on a machine of several spreads it; raises `InvalidInput` where 4 bits are not possible.
    """
    spread = device.type == "cuda" and device.index is None and torch.cuda.device_count() > 1
    if not quantise:
        return {"device_map": "auto"} if spread else {}
    if quantise != "4bit":
        message = f"quantise='{quantise}' is not known."
        raise InvalidInput(message, "Leave it out, or give quantise='4bit'.")
    if device.type != "cuda" or importlib.util.find_spec("bitsandbytes") is None:
        message = "quantise='4bit' needs a CUDA device and the package bitsandbytes."
        raise InvalidInput(message, "Run: pip install bitsandbytes; or leave it out and give precision='bfloat16'.")
    from transformers import BitsAndBytesConfig

    packed = BitsAndBytesConfig(load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_compute_dtype=torch.bfloat16)
    return {"quantization_config": packed, "device_map": "auto" if spread else {"": device}}


def targets(network: nn.Module) -> tuple[str, ...]:
    """Give the names of the linears that LoRA adapts in this network, nothing where none of the known ones is there."""
    names = {name.split(".")[-1] for name, part in network.named_modules() if isinstance(part, nn.Linear)}
    return next((pair for pair in TARGETS if set(pair) <= names), ())


def refuse_pickles(folder: Path) -> None:
    """Raise `WeightsInvalid` for a folder whose tensors are in pickles alone."""
    pickled = sorted(path.name for pattern in ("*.bin", "*.pt", "*.pth") for path in folder.glob(pattern))
    if pickled and not any(folder.glob("*.safetensors")):
        message = f"'{folder}' holds its tensors as a pickle ({pickled[0]}), which is not read."
        raise WeightsInvalid(message, "Take a revision of the repository that has model.safetensors.")


def _pretrained(folder: Path, described: Mapping[str, Any], precision: str, placed: Mapping[str, Any]) -> nn.Module:
    """Fill the network of transformers from the folder; raises `WeightsInvalid`."""
    from huggingface_hub.errors import StrictDataclassError
    from transformers import AutoModel
    from transformers.models.auto.configuration_auto import CONFIG_MAPPING

    kind = described["model_type"]
    if kind not in CONFIG_MAPPING or described.get("is_encoder_decoder"):
        message = f"'{folder}' holds a model of type '{kind}', which is no text model that transformers runs by itself."
        raise WeightsInvalid(message, "Give a decoder or encoder such as llama, qwen3, mistral or bert.")
    dtype = torch.bfloat16 if precision == "bfloat16" else torch.float32
    how: dict[str, Any] = {"dtype": dtype, "use_safetensors": True, "local_files_only": True, **placed}
    try:
        with quiet():
            model, told = AutoModel.from_pretrained(folder, trust_remote_code=False, output_loading_info=True, **how)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError, SafetensorError, StrictDataclassError) as error:
        reason = " ".join(str(error).split())[:300]
        message = f"'{folder}' cannot be read as a text model ({reason})."
        raise WeightsInvalid(message, "Get the files again from their source.") from error
    _account(folder, told)
    if any(not torch.isfinite(p).all() for p in model.parameters() if p.is_floating_point()):
        message = f"'{folder}' holds NaN or infinite numbers."
        raise WeightsInvalid(message, "Get the files again from their source.")
    return model


def _account(folder: Path, told: Mapping[str, Any]) -> None:
    """Raise `WeightsInvalid` at the first tensor that the files lack or that the network does not know."""
    lacking = sorted(name for name in told["missing_keys"] if not name.startswith("pooler."))
    foreign = sorted(name for name in told["unexpected_keys"] if not name.startswith(UNUSED))
    if told["mismatched_keys"]:
        what = f"has '{min(told['mismatched_keys'])[0]}' of another shape than config.json says"
    elif lacking:
        what = f"lacks the tensor '{lacking[0]}'"
    elif foreign:
        what = f"holds the tensor '{foreign[0]}', which the model does not know"
    else:
        return
    raise WeightsInvalid(f"'{folder}' {what}.", "Get the files again from their source.")


@contextmanager
def quiet() -> Iterator[None]:
    """Keep transformers' own reports and bars from the terminal; what matters is raised."""
    from transformers.utils import logging as told

    level, bar = told.get_verbosity(), told.is_progress_bar_enabled()
    told.set_verbosity_error()
    told.disable_progress_bar()
    try:
        yield
    finally:
        told.set_verbosity(level)
        if bar:
            told.enable_progress_bar()


def toy(card: ModelCard, symbols: Sequence[str], folder: Path, seed: int) -> None:
    """Write a tiny model of the card's type with random weights, and a tokenizer that has a word for each symbol."""
    from tokenizers import Tokenizer as Words
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import WhitespaceSplit
    from tokenizers.processors import TemplateProcessing
    from transformers import AutoConfig, AutoModel

    words = Words(WordLevel({word: row for row, word in enumerate(["<unk>", "<s>", *symbols])}, unk_token="<unk>"))
    words.pre_tokenizer = WhitespaceSplit()
    words.post_processor = TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    described = AutoConfig.for_model(
        card.config["transformers"]["model_type"],
        vocab_size=words.get_vocab_size(),
        hidden_size=16,
        intermediate_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        num_key_value_heads=1,
        max_position_embeddings=card.config["transformers"]["max_position_embeddings"],
        initializer_range=0.3,
    )
    folder.mkdir(parents=True, exist_ok=True)
    with torch.random.fork_rng(devices=[]), quiet():
        torch.manual_seed(seed)
        AutoModel.from_config(described).save_pretrained(folder)
    words.save(str(folder / "tokenizer.json"))
