"""What wraps a strategy: the plain fit of one model, and the control that shows what transfer was worth."""
