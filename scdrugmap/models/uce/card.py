"""UCE: the 4-layer release by default, which upstream's script takes as well; the paper's 33 layers are a variant."""

from __future__ import annotations

from types import MappingProxyType

from scdrugmap.models.card import ModelCard, Weights

VARIANTS = MappingProxyType({"4-layer": "4layer_model.torch", "33-layer": "33l_8ep_1024t_1280.torch"})
PLACES, OFFSETS = "species_chrom.csv", "species_offsets.pkl"
PROTEINS = "protein_embeddings/Homo_sapiens.GRCh38.gene_symbol_to_embedding_ESM2.pt"


def files_of(variant: str) -> tuple[str, ...]:
    """Files that a variant needs."""
    return VARIANTS[variant], PLACES, OFFSETS, PROTEINS


CARD = ModelCard(
    key="uce",
    title="UCE",
    kind="foundation",
    summary=(
        "A transformer over 1,024 genes drawn by their expression, each the ESM2 vector of its protein, in the order "
        "of the genome."
    ),
    paper="doi:10.1101/2023.11.28.568918",
    code="https://github.com/snap-stanford/UCE",
    licence="MIT",
    weights=Weights(
        files=files_of("4-layer"),
        licence="CC BY 4.0 by the figshare page, as others have read it (CZI's and Helical's cards say MIT)",
        official="https://figshare.com/articles/dataset/Universal_Cell_Embedding_Model_Files/24320806",
        instruction=(
            "Download https://figshare.com/ndownloader/files/<id> for 42706576 (4layer_model.torch) or 43423236 "
            "(33l_8ep_1024t_1280.torch), 42706558 (species_chrom.csv), 42706555 (species_offsets.pkl) and 42715213 "
            "(protein_embeddings.tar.gz, to be unpacked)."
        ),
        size_mb=6140,  # 3,396 by the shapes of the 4-layer file, 2,740 of the archive of proteins, 4 of the csv
    ),
    dim=1280,
    genes="symbol",
    input="counts",
    config=MappingProxyType(
        {
            "n_tokens": 145_469,  # rows of upstream's table; what is converted keeps the human ones
            "token_dim": 5120,
            "positions": 1536,
            "dim": 1280,
            "heads": 20,
            "inner": 5120,
            "layers": 4,
            "decoder": 1024,
            "out_dim": 1280,
        },
    ),
    n_parameters=91_177_472,  # without the table of protein vectors, which is no parameter but frozen
    max_length=1536,
    pretrained_on="36 million cells of eight species, 33 million of them human and mouse cells of CELLxGENE",
    lora_targets=("q_proj", "k_proj", "v_proj", "out_proj"),
    settings=MappingProxyType(
        {"sample_size": 1024, "seed": 0, "heads": None, "variant": "", "compat": "", "upstream_batch_size": 25},
    ),
    source_settings=("variant",),
    variants=tuple(VARIANTS),
    variant_files=MappingProxyType({variant: files_of(variant) for variant in VARIANTS}),
    cites="Rosen et al. 2023, bioRxiv 2023.11.28.568918; 2026, Nature, doi:10.1038/s41586-026-10689-z",
)
