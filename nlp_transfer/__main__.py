"""`python -m nlp_transfer` is `nlp-transfer`."""

from nlp_transfer.cli import main

__all__: list[str] = []

if __name__ == "__main__":
    main()
