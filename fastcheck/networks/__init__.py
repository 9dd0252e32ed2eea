"""Networks: layers, passes, evaluators, error bars, the check phase by phase."""
