"""Sketches for authors of methods: CountSketch, TensorSketch, projected gradients, truncated residuals."""
