"""What all checks share: settings, dimensions, evaluators' protocol, the coordinator."""
