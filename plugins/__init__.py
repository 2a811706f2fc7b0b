"""Attribution methods, one file each, and the public names for authors of methods.

from headwater.plugins import Similarity, QueryMatrix, column

Re-exports the contract and the sketch tools. Each name is imported at its first use, so that this module loads neither torch nor
zarr nor numba. Defines nothing; knows nothing of the command line.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from ..engine.arrays.linalg import inverse_root, preconditioned
    from ..engine.interface.method import (
        API,
        Accumulator,
        BlockSimilarity,
        Method,
        Precomputed,
        QueryMatrix,
        ResumableAccumulator,
        Similarity,
        TextSimilarity,
    )
    from ..engine.interface.model_view import (
        BATCH_EXAMPLES,
        BatchOutputs,
        Head,
        LinearIO,
        LinearLayer,
        ModelShape,
        OutputSpec,
        Reduction,
        UpperLayers,
        tile_bytes,
    )
    from ..engine.interface.subset_method import (
        Design,
        FitMemory,
        FitSession,
        HiddenStates,
        LayerStates,
        StateArrays,
        SubsetMethod,
    )
    from ..engine.interface.windows import Windows, example_bounds, whole_examples
    from ..engine.sketches.count_sketch import CountSketch, count_sketch, identity
    from ..engine.sketches.head_fisher import FisherShape, FisherSums, ProjectedResidual
    from ..engine.sketches.head_gradient import (
        ExactResidual,
        HeadSketch,
        SketchedResidual,
        gram_root,
        head_product,
        head_product_bytes,
    )
    from ..engine.sketches.hidden_moment import HiddenMoment, whitening_matrix
    from ..engine.sketches.projections import (
        Projection,
        direction,
        outer_sums,
        projected,
        projection_bytes,
        projections,
        require_sketch,
        unit,
        weighted_rows,
    )
    from ..engine.sketches.residual import Loss, SparseResidual
    from ..engine.sketches.tensor_sketch import (
        BucketedResidual,
        tensor_sketch_bytes,
        tensor_sketch_sums,
        tensor_sketches_of,
    )
    from ..engine.sketches.widths import side_widths, width_remark
    from ..store.errors import DataError, HeadwaterError, SettingsError, StoreDamaged
    from ..store.json_values import JsonObject
    from ..store.layout import Array, Block, Column, column

_DEFINED_IN = {
    "..engine.interface.method": (
        "API Accumulator BlockSimilarity Method Precomputed QueryMatrix ResumableAccumulator Similarity TextSimilarity"
    ),
    "..engine.interface.model_view": (
        "BATCH_EXAMPLES BatchOutputs Head LinearIO LinearLayer ModelShape OutputSpec Reduction UpperLayers tile_bytes"
    ),
    "..engine.interface.subset_method": "Design FitMemory FitSession HiddenStates LayerStates StateArrays SubsetMethod",
    "..engine.interface.windows": "Windows example_bounds whole_examples",
    "..engine.arrays.linalg": "inverse_root preconditioned",
    "..engine.sketches.count_sketch": "CountSketch count_sketch identity",
    "..engine.sketches.head_fisher": "FisherShape FisherSums ProjectedResidual",
    "..engine.sketches.head_gradient": (
        "ExactResidual HeadSketch SketchedResidual gram_root head_product head_product_bytes"
    ),
    "..engine.sketches.hidden_moment": "HiddenMoment whitening_matrix",
    "..engine.sketches.projections": (
        "Projection direction outer_sums projected projection_bytes projections require_sketch unit weighted_rows"
    ),
    "..engine.sketches.residual": "Loss SparseResidual",
    "..engine.sketches.tensor_sketch": "BucketedResidual tensor_sketch_bytes tensor_sketch_sums tensor_sketches_of",
    "..engine.sketches.widths": "side_widths width_remark",
    "..store.errors": "DataError HeadwaterError SettingsError StoreDamaged",
    "..store.json_values": "JsonObject",
    "..store.layout": "Array Block Column column",
}
_MODULE_OF = {name: module for module, names in _DEFINED_IN.items() for name in names.split()}

__all__ = [
    "API",
    "BATCH_EXAMPLES",
    "Accumulator",
    "Array",
    "BatchOutputs",
    "Block",
    "BlockSimilarity",
    "BucketedResidual",
    "Column",
    "CountSketch",
    "DataError",
    "Design",
    "ExactResidual",
    "FisherShape",
    "FisherSums",
    "FitMemory",
    "FitSession",
    "Head",
    "HeadSketch",
    "HeadwaterError",
    "HiddenMoment",
    "HiddenStates",
    "JsonObject",
    "LayerStates",
    "LinearIO",
    "LinearLayer",
    "Loss",
    "Method",
    "ModelShape",
    "OutputSpec",
    "Precomputed",
    "ProjectedResidual",
    "Projection",
    "QueryMatrix",
    "Reduction",
    "ResumableAccumulator",
    "SettingsError",
    "Similarity",
    "SketchedResidual",
    "SparseResidual",
    "StateArrays",
    "StoreDamaged",
    "SubsetMethod",
    "TextSimilarity",
    "UpperLayers",
    "Windows",
    "column",
    "count_sketch",
    "direction",
    "example_bounds",
    "gram_root",
    "head_product",
    "head_product_bytes",
    "identity",
    "inverse_root",
    "outer_sums",
    "preconditioned",
    "projected",
    "projection_bytes",
    "projections",
    "require_sketch",
    "side_widths",
    "tensor_sketch_bytes",
    "tensor_sketch_sums",
    "tensor_sketches_of",
    "tile_bytes",
    "unit",
    "weighted_rows",
    "whitening_matrix",
    "whole_examples",
    "width_remark",
]


def __getattr__(name: str) -> object:
    if name not in _MODULE_OF:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_MODULE_OF[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
