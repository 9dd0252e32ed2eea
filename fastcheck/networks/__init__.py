"""Networks: layers, passes, evaluators, error bars, and the check phase by phase."""
