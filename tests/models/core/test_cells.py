from __future__ import annotations

import anndata as ad
import numpy as np
import pytest
from scipy import sparse

from scdrugmap.models import MODELS
from scdrugmap.models.testing import toy_encoder

EMBEDDING = [key for key, card in MODELS.items() if not card.prompted]


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int32])
@pytest.mark.parametrize("key", EMBEDDING)
def test_columns_in_any_order_are_read_and_the_callers_matrix_is_left_as_it_is(cells, key, dtype):
    ordered = sparse.csr_matrix(cells.X, dtype=dtype)
    mixed = ordered.copy()
    for start, end in zip(mixed.indptr[:-1], mixed.indptr[1:], strict=True):
        turn = np.random.default_rng(0).permutation(end - start)
        mixed.indices[start:end], mixed.data[start:end] = mixed.indices[start:end][turn], mixed.data[start:end][turn]
    mixed.has_sorted_indices = mixed.has_canonical_format = False
    encoder = toy_encoder(MODELS[key], cells)
    expected = encoder.embed(ad.AnnData(ordered, obs=cells.obs, var=cells.var))
    adata = ad.AnnData(mixed, obs=cells.obs, var=cells.var)
    for _ in range(2):
        np.testing.assert_array_equal(encoder.embed(adata), expected)
    assert (ordered != adata.X).nnz == 0


@pytest.mark.parametrize("key", [key for key in EMBEDDING if MODELS[key].kind not in ("baseline", "llm")])
def test_a_gene_that_was_renamed_since_is_found_by_the_name_in_the_file(cells, key):
    encoder = toy_encoder(MODELS[key], cells)
    expected = encoder.embed(cells)
    renamed = cells.copy()
    renamed.var["original_name"] = cells.var_names
    renamed.var_names = [f"NEWER-{name}" if row % 3 == 0 else name for row, name in enumerate(cells.var_names)]
    np.testing.assert_allclose(encoder.embed(renamed), expected, atol=1e-5)
    taken = cells.copy()  # a name of the file that is another column's current name stays with that column
    taken.var["original_name"] = np.roll(cells.var_names, 1)
    np.testing.assert_allclose(encoder.embed(taken), expected, atol=1e-5)
