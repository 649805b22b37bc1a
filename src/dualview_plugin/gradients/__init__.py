"""Per-sample gradients in layer-wise factors, their random projections, and the curvature of a last layer."""
