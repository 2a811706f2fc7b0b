"""Tools for authors of methods: CountSketch, TensorSketch, projections, residuals."""
