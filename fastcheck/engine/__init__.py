"""The parts that all checks share: settings, sampling, the protocols of pipelines and evaluators, the coordinator."""
