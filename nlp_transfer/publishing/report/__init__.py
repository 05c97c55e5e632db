"""What a run found: the report, as terminal, notebook and page show it."""
