"""Programs in any language: points in files for them to evaluate, and the judgement on their gradients."""
