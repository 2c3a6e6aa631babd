"""`python train.py …` in a checkout; what it does is told in codec/training/train.py."""

from codec.training.train import main

if __name__ == "__main__":
    main()
