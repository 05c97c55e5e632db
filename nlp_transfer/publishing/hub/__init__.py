"""The way of an artefact to the Hugging Face Hub."""
