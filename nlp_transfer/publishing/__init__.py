"""What a run leaves: artefact, report, pictures, model card."""
