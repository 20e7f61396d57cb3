"""Scoring models: measures, protocols, evaluators, score tables, sessions on several machines, and the report."""
