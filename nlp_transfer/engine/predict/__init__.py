"""Prediction: from texts and rows to logits, vectors and hidden states, without gradients."""
