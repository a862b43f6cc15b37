"""`python -m keras_effnet`: the same as the command `keras-effnet`."""

from keras_effnet.cli import main

if __name__ == "__main__":
    main()
