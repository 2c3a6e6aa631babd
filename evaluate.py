"""`python evaluate.py …` in a checkout; what it does is told in codec/training/evaluate.py."""

from codec.training.evaluate import main

if __name__ == "__main__":
    main()
